//! What a project's files say about how to build it: one file or directory a language.
//!
//! Invariant: a dependency layer's inputs are manifests, lock files and the tools' own configuration, never sources;
//! only the steps that fetch dependencies have the network.

mod c;
mod error;
mod found;
mod go;
mod java;
mod node;
mod python;
mod ruby;
mod rust;
mod staging;
pub(crate) mod tree;

pub use error::Error;
pub use found::{Detected, Identity};

use crate::plan::Source;
pub(crate) use node::package_paths as node_manifests;

type Detector = fn(&dyn Source, &str) -> Result<Option<Detected>, Error>;

/// Languages with a manifest, in the order in which they are asked.
const MANIFESTS: [Detector; 6] = [rust::detect, go::detect, java::detect, node::detect, python::detect, ruby::detect];
/// Asked where no manifest is there: a Makefile often only wraps another language's tool.
const REST: [Detector; 2] = [c::detect, java::detect_plain];

/// How to build the tree. `directory_name` names a project that nothing else names.
pub fn detect(source: &dyn Source, directory_name: &str) -> Result<Detected, Error> {
    let mut chosen: Option<Detected> = None;
    for detector in MANIFESTS {
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
    for detector in REST {
        if chosen.is_none() {
            chosen = detector(source, directory_name)?;
        }
    }
    chosen.ok_or_else(|| {
        let mut found: Vec<&str> = source.paths().iter().take(5).map(String::as_str).collect();
        if source.paths().len() > found.len() {
            found.push("..");
        }
        Error::Unknown { found: crate::plan::list(found) }
    })
}

/// What the project's manifest calls it.
pub fn identity(source: &dyn Source) -> Identity {
    let identities =
        [rust::identity, go::identity, java::identity, node::identity, python::identity, ruby::identity, c::identity];
    identities.into_iter().map(|of| of(source)).find(|i| i.name.is_some() || i.version.is_some()).unwrap_or_default()
}
