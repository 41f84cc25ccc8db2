//! Which files a call writes. Names follow `filename_for_input` and `OutputFilenames` of rustc, for Linux.

use std::path::PathBuf;

use super::emit::Emit;
use super::line::Line;
use crate::call::{CrateType, Output, OutputKind};
use crate::invocation::{Files, Kind};
use crate::refusal::Refusal;

/// The files that a call writes.
pub(super) fn outputs(line: &Line, name: &str, files: &dyn Files) -> Result<Vec<Output>, Refusal> {
    let stem = format!("{name}{}", line.extra_filename);
    let mut found = Vec::new();
    for (emit, path) in &line.emit {
        let (kind, names) = match emit {
            Emit::DepInfo => (OutputKind::Depfile, vec![format!("{stem}.d")]),
            Emit::Metadata => (OutputKind::Metadata, vec![format!("lib{stem}.rmeta")]),
            Emit::Link => (OutputKind::Link, line.crate_types.iter().map(|kind| linked(*kind, &stem)).collect()),
        };
        match path {
            // Where several files are linked, they would all be this one.
            Some(path) if names.len() > 1 => {
                return Err(Refusal::OutputAmbiguous { path: path.display().to_string() });
            }
            Some(path) => found.push((kind, path.clone())),
            None => {
                let directory = line.out_dir.as_deref().ok_or(Refusal::NoName { option: "--out-dir" })?;
                found.extend(names.into_iter().map(|name| (kind, directory.join(name))));
            }
        }
    }
    let outputs: Vec<Output> =
        found.into_iter().map(|(kind, path)| output(line, kind, path, files)).collect::<Result<_, _>>()?;
    let twice = (0..)
        .zip(&outputs)
        .find(|&(before, one)| outputs.iter().take(before).any(|other| other.absolute == one.absolute));
    match twice {
        Some((_, output)) => Err(Refusal::OutputAmbiguous { path: output.path.display().to_string() }),
        None => Ok(outputs),
    }
}

fn linked(kind: CrateType, stem: &str) -> String {
    match kind {
        CrateType::Lib => format!("lib{stem}.rlib"),
        CrateType::StaticLib => format!("lib{stem}.a"),
        CrateType::CDyLib | CrateType::ProcMacro => format!("lib{stem}.so"),
        CrateType::Bin => stem.to_owned(),
    }
}

fn output(line: &Line, kind: OutputKind, path: PathBuf, files: &dyn Files) -> Result<Output, Refusal> {
    let absolute = line.absolute(&path);
    let shown = path.display().to_string();
    let special = ["/dev", "/proc", "/sys"].iter().any(|place| absolute.starts_with(place));
    if shown == "-" || special || matches!(files.kind(&absolute), Some(Kind::Directory | Kind::Other)) {
        return Err(Refusal::OutputNotAFile { path: shown });
    }
    let is_input = line.inputs.iter().any(|input| input.path == absolute)
        || line.sources.iter().any(|source| line.absolute(source) == absolute);
    if is_input {
        return Err(Refusal::OutputAmbiguous { path: shown });
    }
    Ok(Output { kind, path, absolute, required: true })
}
