//! Which files a call writes.
//!
//! Names that are derived follow GCC's manual, "Auxiliary and dump outputs", and were compared with gcc 12 and clang 14.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::line::Line;
use crate::call::{Language, Output, OutputKind};
use crate::invocation::{Files, Kind};
use crate::paths::of_the_system;
use crate::refusal::Refusal;

/// The files that a call writes.
pub(super) fn outputs(
    line: &Line,
    source: &OsStr,
    language: Language,
    files: &dyn Files,
) -> Result<Vec<Output>, Refusal> {
    let mut found = vec![(OutputKind::Object, object(line, source, language)?, true)];
    let base = base(line, source);
    let derived = !line.beside.is_empty() || line.dependencies && line.depfile.is_none() && line.outputs.is_empty();
    if derived && language.is_header() && !line.compile {
        // Named as if a program were made of it, in ways that depend on the other options.
        return Err(Refusal::ExtraFiles { option: "a precompiled header without `-c`".to_owned() });
    }
    if line.dependencies && line.passed_depfile {
        return Err(Refusal::PreprocessorOption { option: "-Wp,-MD".to_owned() });
    }
    if line.dependencies {
        let depfile = line.depfile.clone().unwrap_or_else(|| suffixed(&base, ".d"));
        found.push((OutputKind::Depfile, depfile, true));
    }
    found.extend(line.written.iter().map(|(kind, path)| (*kind, path.clone(), true)));
    for kind in &line.beside {
        let suffix = match kind {
            OutputKind::Coverage => ".gcno",
            OutputKind::SplitDebug => ".dwo",
            OutputKind::StackUsage => ".su",
            OutputKind::CallGraph => ".ci",
            _ => continue,
        };
        found.push((*kind, suffixed(&base, suffix), false));
        if *kind == OutputKind::Coverage {
            // gcc before 9 writes it to the working directory.
            let name = |path: &OsStr| suffixed(Path::new(path).file_name().unwrap_or_default(), suffix);
            found.push((*kind, name(&base), false));
            found.push((*kind, name(stem(source)), false));
        }
    }
    let mut outputs: Vec<Output> = Vec::with_capacity(found.len());
    for (kind, path, required) in found {
        let absolute = line.absolute(&path);
        match outputs.iter().find(|other| other.absolute == absolute) {
            Some(other) if other.kind == kind => continue,
            Some(_) => return Err(Refusal::OutputAmbiguous { path: path.to_string_lossy().into_owned() }),
            None => {}
        }
        check(line, &path, &absolute, source, files)?;
        outputs.push(Output { kind, path: PathBuf::from(path), absolute, required });
    }
    Ok(outputs)
}

/// Refuses what is not, or would not be, a regular file of the step's own.
fn check(line: &Line, path: &OsStr, absolute: &Path, source: &OsStr, files: &dyn Files) -> Result<(), Refusal> {
    let shown = || path.to_string_lossy().into_owned();
    let special = ["/dev", "/proc", "/sys"].iter().any(|place| absolute.starts_with(place));
    let written = path.as_bytes();
    let is_other = matches!(files.kind(absolute), Some(Kind::Directory | Kind::Other));
    if written.is_empty()
        || written == b"-"
        || written.ends_with(b"/")
        || special
        || of_the_system(absolute)
        || is_other
    {
        return Err(Refusal::OutputNotAFile { path: shown() });
    }
    if absolute == line.absolute(source) || line.inputs.iter().any(|input| input.path == absolute) {
        return Err(Refusal::OutputAmbiguous { path: shown() });
    }
    Ok(())
}

/// The object, assembler text or precompiled header.
fn object(line: &Line, source: &OsStr, language: Language) -> Result<OsString, Refusal> {
    match &line.outputs[..] {
        [output] => return Ok(output.clone()),
        [] => {}
        // gcc 12 hands both to its parts, and overwrites the source.
        [.., last] => return Err(Refusal::OutputAmbiguous { path: last.to_string_lossy().into_owned() }),
    }
    if language.is_header() {
        if line.driver.clang {
            // `.gch` or `.pch`, by the version.
            return Err(Refusal::ExtraFiles { option: "a precompiled header without `-o`".to_owned() });
        }
        return Ok(suffixed(source, ".gch"));
    }
    Ok(suffixed(stem(Path::new(source).file_name().unwrap_or_default()), if line.assembly { ".s" } else { ".o" }))
}

/// What the names of other outputs begin with.
fn base(line: &Line, source: &OsStr) -> OsString {
    if let Some(output) = line.outputs.first() {
        return stem(output).to_owned();
    }
    stem(Path::new(source).file_name().unwrap_or_default()).to_owned()
}

/// The profile that gcc looks for beside the object.
pub(super) fn profile_base(line: &Line, source: &OsStr) -> OsString {
    suffixed(&base(line, source), ".gcda")
}

/// A path without the last suffix of its file name.
fn stem(path: &OsStr) -> &OsStr {
    let mut parts = path.as_bytes().rsplitn(2, |c| *c == b'.');
    match (parts.next(), parts.next()) {
        (Some(suffix), Some(stem)) if !suffix.contains(&b'/') && !matches!(stem.last(), None | Some(b'/')) => {
            OsStr::from_bytes(stem)
        }
        _ => path,
    }
}

fn suffixed(path: &OsStr, suffix: &str) -> OsString {
    let mut path = path.to_owned();
    path.push(suffix);
    path
}
