//! What a project's files say about how to build it: one file or directory a language.
//!
//! Invariant: a dependency layer's inputs are manifests, lock files and the tools' own configuration, never sources;
//! only the steps that fetch dependencies have the network.

mod error;
mod found;
mod rust;
pub(crate) mod tree;

pub use error::Error;
pub use found::{Detected, Identity};

use crate::plan::Source;

type Detector = fn(&dyn Source, &str) -> Result<Option<Detected>, Error>;

/// In the order in which they are asked: a Makefile often only wraps another language's tool.
const DETECTORS: [Detector; 1] = [rust::detect];

/// How to build the tree. `directory_name` names a project that nothing else names.
pub fn detect(source: &dyn Source, directory_name: &str) -> Result<Detected, Error> {
    let mut chosen: Option<Detected> = None;
    for detector in DETECTORS {
        match (&mut chosen, detector(source, directory_name)) {
            (None, found) => chosen = found?,
            (Some(first), Ok(Some(other))) => first.notes.push(format!(
                "the project is built as {}; it also looks like {}, which a `kiln.toml` could build beside it",
                first.language, other.language
            )),
            // What is wrong with a language that is not built is nobody's concern.
            (Some(_), Ok(None) | Err(_)) => {}
        }
    }
    chosen.ok_or_else(|| {
        let mut found: Vec<&str> = source.paths().iter().take(5).map(String::as_str).collect();
        if source.paths().len() > found.len() {
            found.push("..");
        }
        Error::Unknown {
            found: crate::plan::list(found),
        }
    })
}

/// What the project's manifest calls it.
pub fn identity(source: &dyn Source) -> Identity {
    rust::identity(source)
}
