//! Reads a command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::driver::Driver;
use super::line::Line;
use super::table::{Meaning, Row, Why};
use super::words::{Word, words};
use super::{assembler, clang, environment, language, outputs, preprocessor, response};
use crate::call::{CDetails, Call, Details, Language, OutputKind, Role};
use crate::invocation::{Files, Invocation};
use crate::paths::{absolute, file_name, of_the_system};
use crate::refusal::Refusal;

/// What a call of gcc or clang reads and writes, or why it must run in its step.
pub(crate) fn understand(
    driver: Driver,
    program: OsString,
    arguments: &[OsString],
    invocation: &Invocation,
    files: &dyn Files,
) -> Result<Call, Refusal> {
    let directory = invocation.directory.as_path();
    let environment = environment::allowed(&invocation.environment)?;
    let arguments = response::expand(arguments, directory, files)?;
    if links(&arguments) {
        return Err(Refusal::Link);
    }
    let mut line = Line::new(driver, directory);
    for word in words(&arguments) {
        take(&mut line, &word?)?;
    }
    assembler::check(line.assembler.iter().map(Vec::as_slice))?;
    let (source, language) = source(&line)?;
    goal(&line, language)?;
    probe(&source, directory)?;
    if line.profile_beside {
        let base = outputs::profile_base(&line, &source);
        line.may_read(Role::Profile, base.as_bytes());
    }
    let outputs = outputs::outputs(&line, &source, language, files)?;
    let source = line.absolute(&source);
    line.includes.sort_by_key(|include| !include.macros_only);
    Ok(Call {
        program,
        language,
        source,
        directory: directory.to_owned(),
        outputs,
        inputs: line.inputs,
        details: Details::C(CDetails {
            search: line.directories.search(directory, language, &environment)?,
            forced: line.includes,
            defined: line.defined,
            native: line.native,
            reproducible: line.seed_given || !(line.seeded || language.is_header()),
        }),
        arguments,
        environment,
    })
}

/// Whether a call does nothing but link, whatever its other options are.
fn links(arguments: &[OsString]) -> bool {
    let mut files = false;
    for word in words(arguments).filter_map(Result::ok) {
        match word.row.map(|row| row.meaning) {
            Some(
                Meaning::Compile
                | Meaning::Assembly
                | Meaning::Language
                | Meaning::Refuse(Why::Information | Why::Preprocess | Why::NoObject),
            ) => return false,
            Some(_) => {}
            None => files |= !is_header(word.value) && word.value != "-",
        }
    }
    files
}

fn is_header(file: &OsStr) -> bool {
    let extension = Path::new(file).extension().map(OsStr::as_encoded_bytes);
    extension.is_some_and(|extension| extension.starts_with(b"h") || extension.starts_with(b"H"))
}

/// The one source and its language.
fn source(line: &Line) -> Result<(OsString, Language), Refusal> {
    let mut source: Option<(OsString, Language)> = None;
    for (file, language) in &line.files {
        if file == "-" {
            return Err(Refusal::StandardInput);
        }
        let language = match language {
            Some(language) => *language,
            None => match language::of_file(file, line.driver) {
                Some(language) => language?,
                // For the linker: if it were the only file, nothing would be compiled.
                None => continue,
            },
        };
        if let Some((first, _)) = source {
            let shown = |path: &OsStr| path.to_string_lossy().into_owned();
            return Err(Refusal::SeveralSources { first: shown(&first), second: shown(file) });
        }
        source = Some((file.clone(), language));
    }
    source.ok_or(Refusal::NoSource)
}

/// Refuses calls that make something else than an object, assembler text or a precompiled header.
fn goal(line: &Line, language: Language) -> Result<(), Refusal> {
    match (line.compile || language.is_header(), line.assembly) {
        (_, true) if language.is_header() => Err(Refusal::NoObject { option: "-S".to_owned() }),
        (false, false) => Err(Refusal::Link),
        _ => Ok(()),
    }
}

/// Refuses the small compilations by which configure, CMake and Meson find out what there is.
fn probe(source: &OsStr, directory: &Path) -> Result<(), Refusal> {
    let path = absolute(directory, Path::new(source));
    let probes = [OsStr::new("CMakeScratch"), OsStr::new("CMakeTmp"), OsStr::new("meson-private")];
    let inside = |path: &Path| path.iter().any(|name| probes.contains(&name));
    if file_name(source).starts_with(b"conftest") || inside(&path) || inside(directory) {
        return Err(Refusal::Probe { path: path.display().to_string() });
    }
    Ok(())
}

/// Takes one word into account.
fn take(line: &mut Line, word: &Word) -> Result<(), Refusal> {
    let value = word.value;
    let option = || word.first.to_string_lossy().into_owned();
    let Some(row) = word.row else {
        line.files.push((value.to_owned(), line.language));
        return Ok(());
    };
    match row.meaning {
        Meaning::Pass => {}
        Meaning::Family => family(row, value)?,
        Meaning::Compile => line.compile = true,
        Meaning::Assembly => line.assembly = true,
        Meaning::Output => line.outputs.push(value.to_owned()),
        Meaning::Language => line.language = language::named(value)?,
        Meaning::Dependencies => line.dependencies = true,
        Meaning::Depfile => line.depfile = Some(value.to_owned()),
        // clang's `-gsplit-dwarf=single` keeps everything in the object.
        Meaning::Beside(OutputKind::SplitDebug) if value == "single" => {}
        Meaning::Beside(kind) => line.beside.push(kind),
        Meaning::Coverage => {
            line.beside.push(OutputKind::Coverage);
            line.seeded = true;
        }
        Meaning::LinkTime => line.seeded = true,
        Meaning::Seed => line.seed_given = true,
        Meaning::Writes(kind) => line.writes(kind, value.as_bytes()),
        Meaning::Reads(role) => line.reads(role, value.as_bytes()),
        Meaning::Profile(default) => profile(line, value, default),
        Meaning::Plugin => plugin(line, value)?,
        Meaning::Specs => specs(line, value),
        Meaning::Directory(kind) => line.directories.add(kind, value),
        Meaning::Prefix => line.directories.prefix(value),
        Meaning::AfterPrefix(kind) => line.directories.add_after_prefix(kind, value)?,
        Meaning::NoStandard => line.directories.no_standard = true,
        Meaning::NoStandardCxx => line.directories.no_standard_cxx = true,
        Meaning::Sysroot => line.directories.sysroot(value),
        Meaning::HeaderSysroot => line.directories.header_sysroot(value),
        Meaning::Include { macros_only } => line.include(value.as_bytes(), macros_only),
        Meaning::Define => line.define(value.as_bytes()),
        Meaning::Undefine => line.undefine(value.as_bytes()),
        Meaning::Cpu if value.as_bytes().starts_with(b"native") => line.native.push(word.first.clone()),
        Meaning::Cpu => {}
        Meaning::Assembler => line.assembler.extend(value.as_bytes().split(|c| *c == b',').map(<[u8]>::to_vec)),
        Meaning::Preprocessor => preprocessor::read(line, value.as_bytes())?,
        Meaning::Frontend => clang::read(line, value.as_bytes())?,
        Meaning::Linker => linker(value, option)?,
        Meaning::Programs => {
            let path = line.absolute(value);
            if !of_the_system(&path) {
                return Err(Refusal::OtherPrograms { option: option() });
            }
        }
        Meaning::Refuse(why) => return Err(refusal(why, option())),
    }
    Ok(())
}

/// An option that has no row of its own may have a value, but not one that could be a path.
fn family(row: &Row, value: &OsStr) -> Result<(), Refusal> {
    if value.as_bytes().contains(&b'/') {
        return Err(Refusal::UnknownOption { option: format!("{}{}", row.name, value.to_string_lossy()) });
    }
    Ok(())
}

fn profile(line: &mut Line, value: &OsStr, default: &str) {
    match (value.is_empty(), default.is_empty()) {
        (false, _) => line.reads(Role::Profile, value.as_bytes()),
        (true, false) => line.may_read(Role::Profile, default.as_bytes()),
        (true, true) => line.profile_beside = true,
    }
}

fn plugin(line: &mut Line, value: &OsStr) -> Result<(), Refusal> {
    if file_name(value).starts_with(b"libcc1plugin") {
        return Err(Refusal::Plugin { plugin: value.to_string_lossy().into_owned() });
    }
    if value.as_bytes().contains(&b'/') {
        line.reads(Role::Plugin, value.as_bytes());
    }
    Ok(())
}

fn specs(line: &mut Line, value: &OsStr) {
    if value.as_bytes().contains(&b'/') {
        line.reads(Role::Specs, value.as_bytes());
    } else {
        // Directories of the system come first.
        line.may_read(Role::Specs, value.as_bytes());
    }
}

fn linker(value: &OsStr, option: impl Fn() -> String) -> Result<(), Refusal> {
    if value.as_bytes().split(|c| *c == b',').any(|item| item.starts_with(b"@")) {
        return Err(Refusal::ResponseFile { path: option().into(), reason: "it is hidden in another option's value" });
    }
    Ok(())
}

fn refusal(why: Why, option: String) -> Refusal {
    match why {
        Why::Information => Refusal::Information { option },
        Why::Preprocess => Refusal::Preprocess { option },
        Why::CompilationDatabase => Refusal::CompilationDatabase { option },
        Why::ExtraFiles => Refusal::ExtraFiles { option },
        Why::NoObject => Refusal::NoObject { option },
        Why::Modules => Refusal::Modules { option },
        Why::Preprocessor => Refusal::PreprocessorOption { option },
        Why::OtherPrograms => Refusal::OtherPrograms { option },
        Why::Platform => Refusal::Platform { option },
        Why::LineMarkers => Refusal::LineMarkers { option },
        Why::HiddenState => Refusal::HiddenState { option },
        Why::HeaderSearch => Refusal::HeaderSearch { option },
        Why::Unknown => Refusal::UnknownOption { option },
    }
}
