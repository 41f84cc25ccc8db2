//! `--emit`: what is made, and where if not in `--out-dir`.

use std::path::PathBuf;

use crate::refusal::Refusal;

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emit {
    DepInfo,
    Metadata,
    Link,
}

/// The parts of a list such as `dep-info,metadata=x.rmeta,link`.
pub(super) fn read(list: &str) -> Result<Vec<(Emit, Option<PathBuf>)>, Refusal> {
    list.split(',')
        .map(|part| {
            let (kind, path) = part.split_once('=').map_or((part, None), |(kind, path)| (kind, Some(path)));
            let kind = match kind {
                "dep-info" => Emit::DepInfo,
                "metadata" => Emit::Metadata,
                "link" => Emit::Link,
                // Assembler, bitcode, …: probes of build scripts, and names that depend on units of code generation.
                _ => return Err(Refusal::ExtraFiles { option: format!("--emit={part}") }),
            };
            Ok((kind, path.map(PathBuf::from)))
        })
        .collect()
}
