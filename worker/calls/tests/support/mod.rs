//! Calls in a directory `/build` whose files are in memory.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use kiln_calls::{CDetails, Call, Details, Files, Invocation, Kind, OutputKind, Refusal, understand};

/// Files by their absolute paths; a path that ends in `/` is a directory.
#[derive(Debug, Default, Clone)]
pub struct Memory(pub BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Memory {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let entry = |(path, content): &(&str, &str)| match path.strip_suffix('/') {
            Some(directory) => (PathBuf::from(directory), None),
            None => (PathBuf::from(path), Some(content.as_bytes().to_vec())),
        };
        Self(files.iter().map(entry).collect())
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.get(path)?.clone()
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        match self.0.get(path) {
            Some(Some(_)) => Some(Kind::File),
            Some(None) => Some(Kind::Directory),
            None if path.starts_with("/dev") => Some(Kind::Other),
            None => None,
        }
    }
}

/// A call in `/build`, as a shell would read it; no quotes.
pub fn invocation(line: &str) -> Invocation {
    let mut words = line.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
    Invocation {
        program: words.next().unwrap(),
        arguments: words.collect(),
        directory: PathBuf::from("/build"),
        environment: BTreeMap::new(),
    }
}

pub fn with_files(line: &str, files: &[(&str, &str)]) -> Result<Call, Refusal> {
    understand(&invocation(line), &Memory::new(files))
}

pub fn call(line: &str) -> Call {
    with_files(line, &[]).unwrap_or_else(|refusal| panic!("`{line}`: {refusal}"))
}

/// The label of a call's refusal.
pub fn refused(line: &str) -> &'static str {
    match with_files(line, &[]) {
        Ok(call) => panic!("expected `{line}` to be refused, found {call:#?}"),
        Err(refusal) => refusal.label(),
    }
}

pub fn details(call: &Call) -> &CDetails {
    match &call.details {
        Details::C(details) => details,
        Details::Rust(_) => panic!("expected a call of a C compiler, found {call:?}"),
    }
}

/// The outputs of a kind, as written; those that may be missing with a `?`.
pub fn outputs(call: &Call, kind: OutputKind) -> Vec<String> {
    let shown =
        |output: &kiln_calls::Output| format!("{}{}", output.path.display(), if output.required { "" } else { "?" });
    call.outputs.iter().filter(|output| output.kind == kind).map(shown).collect()
}

/// The paths of inputs that arguments name; those that may be missing with a `?`.
pub fn inputs(call: &Call) -> Vec<String> {
    let shown =
        |input: &kiln_calls::Input| format!("{}{}", input.path.display(), if input.required { "" } else { "?" });
    call.inputs.iter().map(shown).collect()
}
