//! Reads a command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::emit::Emit;
use super::line::Line;
use super::options::{Meaning, Word, words};
use super::{codegen, emit, environment, outputs, target};
use crate::call::{Call, CrateType, Details, Extern, Language, Role, RustDetails};
use crate::invocation::{Files, Invocation};
use crate::paths::absolute;
use crate::refusal::Refusal;

/// What a call of rustc reads and writes, or why it must run in its step.
pub(crate) fn understand(
    program: OsString,
    arguments: &[OsString],
    invocation: &Invocation,
    files: &dyn Files,
) -> Result<Call, Refusal> {
    let directory = invocation.directory.as_path();
    let arguments = expand(arguments, directory, files)?;
    let mut line = Line::new(directory);
    for word in words(&arguments) {
        match word? {
            Word::File(path) => line.sources.push(PathBuf::from(path)),
            Word::Option(Meaning::Information, name, value) => {
                let option = format!("{name} {}", value.to_string_lossy()).trim_end().to_owned();
                return Err(Refusal::Information { option });
            }
            Word::Option(meaning, _, value) => take(&mut line, meaning, value, invocation)?,
        }
    }
    let source = source(&line)?;
    if line.emit.is_empty() {
        return Err(Refusal::NoEmit);
    }
    if line.test {
        line.crate_types = vec![CrateType::Bin];
    } else if line.crate_types.is_empty() {
        // The source may say it.
        return Err(Refusal::NoName { option: "--crate-type" });
    }
    line.crate_types.sort_unstable();
    line.crate_types.dedup();
    let crate_name = line.crate_name.take().ok_or(Refusal::NoName { option: "--crate-name" })?;
    let outputs = outputs::outputs(&line, &crate_name, files)?;
    let named = |name: &str| {
        let path = invocation.environment.get(OsStr::new(name)).filter(|path| !path.is_empty())?;
        Some(absolute(directory, Path::new(path)))
    };
    Ok(Call {
        program,
        language: Language::Rust,
        source,
        directory: directory.to_owned(),
        environment: environment::allowed(&invocation.environment),
        outputs,
        inputs: line.inputs,
        details: Details::Rust(RustDetails {
            crate_name,
            crate_types: line.crate_types,
            externs: line.externs,
            dependency_directories: line.dependency_directories,
            native_directories: line.native_directories,
            out_dir: named("OUT_DIR"),
            manifest_directory: named("CARGO_MANIFEST_DIR"),
            announces_artifacts: line.announces_artifacts,
            native: line.native,
            links: line.emit.iter().any(|(emit, _)| *emit == Emit::Link),
        }),
        arguments,
    })
}

/// The arguments with response files expanded: one argument a line, no quotes. rustc expands no file that a file names.
fn expand(arguments: &[OsString], directory: &Path, files: &dyn Files) -> Result<Vec<OsString>, Refusal> {
    let mut expanded = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let Some(name) = argument.as_bytes().strip_prefix(b"@") else {
            expanded.push(argument.clone());
            continue;
        };
        let path = absolute(directory, Path::new(OsStr::from_bytes(name)));
        let refuse = |reason| Refusal::ResponseFile { path: path.clone(), reason };
        let content = files.read(&path).ok_or_else(|| refuse("it cannot be read"))?;
        let content = String::from_utf8(content).map_err(|_| refuse("it is not UTF-8"))?;
        if content.lines().any(|line| line.starts_with('@')) {
            return Err(refuse("an argument in it begins with `@`"));
        }
        expanded.extend(content.lines().map(OsString::from));
    }
    Ok(expanded)
}

fn source(line: &Line) -> Result<PathBuf, Refusal> {
    match &line.sources[..] {
        [] => Err(Refusal::NoSource),
        [source] if source.as_os_str() == "-" => Err(Refusal::StandardInput),
        [source] => Ok(line.absolute(source)),
        [first, second, ..] => {
            Err(Refusal::SeveralSources { first: first.display().to_string(), second: second.display().to_string() })
        }
    }
}

/// Takes one option into account.
fn take(line: &mut Line, meaning: Meaning, value: &OsStr, invocation: &Invocation) -> Result<(), Refusal> {
    // rustc refuses arguments that are not UTF-8, so what is lost here was never compiled.
    let text = value.to_string_lossy();
    match meaning {
        // Refused before: with its name.
        Meaning::Information => {}
        Meaning::Pass => {
            if text == "help" {
                return Err(Refusal::Information { option: text.into_owned() });
            }
        }
        Meaning::CrateName => line.crate_name = Some(crate_name(&text)?),
        Meaning::CrateType => {
            for kind in text.split(',') {
                line.crate_types.push(crate_type(kind)?);
            }
        }
        Meaning::Emit => line.emit.extend(emit::read(&text)?),
        Meaning::OutDir => line.out_dir = Some(PathBuf::from(value)),
        Meaning::Target => target::check(&text, &invocation.environment)?,
        Meaning::Test => line.test = true,
        Meaning::Extern => external(line, &text),
        Meaning::Library => {
            if text.starts_with("framework") {
                return Err(Refusal::Platform { option: format!("-l {text}") });
            }
        }
        Meaning::LibraryDirectory => library_directory(line, &text)?,
        Meaning::Json => line.announces_artifacts |= text.split(',').any(|part| part == "artifacts"),
        Meaning::Codegen => codegen::read(line, &text)?,
        Meaning::Sysroot => return Err(Refusal::Sysroot { option: format!("--sysroot {text}") }),
        Meaning::Output => return Err(Refusal::OutputAmbiguous { path: text.into_owned() }),
    }
    Ok(())
}

/// A name that is part of paths.
fn crate_name(name: &str) -> Result<String, Refusal> {
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(Refusal::NoName { option: "--crate-name" });
    }
    Ok(name.to_owned())
}

fn crate_type(name: &str) -> Result<CrateType, Refusal> {
    Ok(match name {
        "lib" | "rlib" => CrateType::Lib,
        "staticlib" => CrateType::StaticLib,
        "cdylib" => CrateType::CDyLib,
        "proc-macro" => CrateType::ProcMacro,
        "bin" => CrateType::Bin,
        // `dylib`: what it links to follows from the metadata of its dependencies.
        other => return Err(Refusal::CrateType { crate_type: other.to_owned() }),
    })
}

/// `[options:]name[=path]`.
fn external(line: &mut Line, text: &str) {
    let (name, path) = text.split_once('=').map_or((text, None), |(name, path)| (name, Some(Path::new(path))));
    let name = name.rsplit(':').next().unwrap_or(name).to_owned();
    if let Some(path) = path {
        line.reads(Role::Crate, path);
    }
    let path = path.map(|path| line.absolute(path));
    line.externs.push(Extern { name, path });
}

/// `[kind=]path`.
fn library_directory(line: &mut Line, text: &str) -> Result<(), Refusal> {
    let kinds = ["dependency", "crate", "native", "all", "framework"];
    let named = text.split_once('=').filter(|(kind, _)| kinds.contains(kind));
    let (kind, path) = named.unwrap_or(("all", text));
    if kind == "framework" {
        return Err(Refusal::Platform { option: format!("-L {text}") });
    }
    let path = line.absolute(Path::new(path));
    if kind != "native" {
        line.dependency_directories.push(path.clone());
    }
    if matches!(kind, "native" | "all") {
        line.native_directories.push(path);
    }
    Ok(())
}
