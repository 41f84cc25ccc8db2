//! Turns the files that an action left into blobs in the store and entries of its result.
//!
//! Invariant: nothing outside the input root is ever read: symbolic links are outputs and are never followed.

mod collect;
mod hash;
mod room;
mod walk;

use std::path::{Path, PathBuf};

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_proto::transfer::Blob;
use kiln_trees::tree;
use tokio_util::sync::CancellationToken;

pub use collect::gather;
pub(crate) use room::MAX_BYTES;

/// What to collect, and where.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The input root after the action.
    pub root: &'a Path,
    /// The action's command, which names its outputs.
    pub command: &'a reapi::Command,
    /// The digest function for blobs.
    pub function: DigestFunction,
}

/// The outputs, as in an `ActionResult`.
#[derive(Debug, Default)]
pub struct Collected {
    /// Regular files.
    pub output_files: Vec<reapi::OutputFile>,
    /// Directories.
    pub output_directories: Vec<reapi::OutputDirectory>,
    /// Symbolic links.
    pub output_symlinks: Vec<reapi::OutputSymlink>,
    /// For clients of REAPI 2.0: links that were requested as files.
    pub output_file_symlinks: Vec<reapi::OutputSymlink>,
    /// For clients of REAPI 2.0: links that were requested as directories.
    pub output_directory_symlinks: Vec<reapi::OutputSymlink>,
}

/// Outputs that were read and are not stored yet.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Their entries.
    pub collected: Collected,
    /// The blobs that these name.
    pub blobs: Vec<(Digest, Blob)>,
    /// Files that later actions may have as inputs, with whether they are executable.
    pub files: Vec<(Digest, bool, PathBuf)>,
}

/// Why outputs cannot be collected.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{0}")]
    Precondition(String),
    #[error("{0}")]
    Invalid(String),
    #[error("cannot store the outputs: {0}")]
    Farm(String),
    #[error("the outputs are no longer wanted")]
    Cancelled,
}

/// Hashes files, each with the name that an error gives it, on all processors and until cancelled.
pub(crate) fn hash_all(
    function: DigestFunction,
    files: &[(&Path, &[u8])],
    cancel: &CancellationToken,
) -> Result<Vec<Digest>, Error> {
    let found = |(path, name): &(&Path, &[u8])| walk::Found {
        path: path.to_path_buf(),
        bytes: u64::MAX,
        executable: false,
        mode: None,
        output: String::from_utf8_lossy(name).into_owned(),
    };
    let found: Vec<walk::Found> = files.iter().map(found).collect();
    let hashed = hash::hash(function, &found.iter().collect::<Vec<_>>(), 0, cancel)?;
    Ok(hashed.into_iter().map(|one| one.digest).collect())
}

/// How an output was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In `output_paths`.
    Any,
    /// In `output_files` of REAPI 2.0.
    File,
    /// In `output_directories` of REAPI 2.0.
    Directory,
}

/// The outputs that a command names, relative to its working directory.
fn wanted(command: &reapi::Command) -> Result<Vec<(String, Kind)>, Error> {
    #[allow(deprecated)]
    let wanted: Vec<(&String, Kind)> = if command.output_paths.is_empty() {
        let files = command.output_files.iter().map(|path| (path, Kind::File));
        files.chain(command.output_directories.iter().map(|path| (path, Kind::Directory))).collect()
    } else {
        command.output_paths.iter().map(|path| (path, Kind::Any)).collect()
    };
    wanted.into_iter().map(|(path, kind)| Ok((path.trim_end_matches('/').to_owned(), kind))).collect()
}

/// The path of an output relative to the input root.
fn place(command: &reapi::Command, path: &str) -> Result<String, Error> {
    tree::resolve(&command.working_directory, path).ok_or_else(|| {
        Error::Invalid(format!("output `{path}` leaves the input tree; expected a path that stays inside"))
    })
}

/// Directories to create before the command starts, relative to the input root: the parents of its outputs.
pub fn directories_to_make(command: &reapi::Command) -> Result<Vec<String>, Error> {
    let mut directories: Vec<String> = Vec::new();
    for (path, kind) in wanted(command)? {
        let path = place(command, &path)?;
        // Clients of REAPI 2.0 expect the directory itself.
        let parent = match kind {
            Kind::Directory => path.as_str(),
            Kind::Any | Kind::File => path.rsplit_once('/').map_or("", |(parent, _)| parent),
        };
        if !parent.is_empty() && !directories.iter().any(|known| known == parent) {
            directories.push(parent.to_owned());
        }
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_outputs_are_made_and_legacy_directories_themselves() {
        let command = reapi::Command {
            working_directory: "w".into(),
            output_paths: vec!["a/b".into(), "a/c".into(), "d".into()],
            ..Default::default()
        };
        assert_eq!(directories_to_make(&command).unwrap(), ["w/a", "w"]);
        #[allow(deprecated)]
        let legacy = reapi::Command { output_directories: vec!["x/y".into()], ..Default::default() };
        assert_eq!(directories_to_make(&legacy).unwrap(), ["x/y"]);
        let beside =
            reapi::Command { working_directory: "a".into(), output_paths: vec!["../b/x".into()], ..Default::default() };
        assert_eq!(directories_to_make(&beside).unwrap(), ["b"]);
    }

    #[test]
    fn an_output_that_leaves_the_tree_is_refused() {
        for path in ["/etc/passwd", "../x", "a/../../x"] {
            let command = reapi::Command { output_paths: vec![path.into()], ..Default::default() };
            assert!(matches!(directories_to_make(&command), Err(Error::Invalid(_))), "expected `{path}` to be refused");
        }
    }
}
