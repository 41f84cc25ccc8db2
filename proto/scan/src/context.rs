//! Lists a directory that a Dockerfile copies from: everything but what `.dockerignore` names, whatever git says. As with BuildKit, a
//! socket becomes an empty file and devices are left out.

use std::fmt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, mpsc};

use ignore::{DirEntry, WalkBuilder, WalkState};
use kiln_trees::tree::{PIPE, exact_mode};

use super::walk::{Found, Kind, LeftOut, Walked, Why};
use super::{Error, Stat};

/// Whether a path belongs to a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It does.
    Yes,
    /// It does not, and nothing below it.
    No,
    /// A directory that is only there for what is kept below it.
    IfNeeded,
}

/// Told a path below a context's root, and whether it is a directory.
type Rule = dyn Fn(&str, bool) -> Kept + Send + Sync;

/// Which paths belong to a context.
#[derive(Clone)]
pub struct Keeps(Arc<Rule>);

impl Keeps {
    /// A rule.
    pub fn new(rule: impl Fn(&str, bool) -> Kept + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    /// What it says of a path below the context's root.
    pub fn of(&self, path: &str, is_directory: bool) -> Kept {
        (self.0)(path, is_directory)
    }
}

impl Default for Keeps {
    /// Everything belongs to it.
    fn default() -> Self {
        Self::new(|_, _| Kept::Yes)
    }
}

impl fmt::Debug for Keeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeps")
    }
}

/// What is found, or left out.
enum Seen {
    Found(Found),
    LeftOut(LeftOut),
}

/// Walks an absolute directory.
pub(super) fn walk(root: &Path, keeps: &Keeps) -> Result<Walked, Error> {
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
    let (base, rule) = (root.to_owned(), keeps.clone());
    let walker = WalkBuilder::new(root)
        .standard_filters(false)
        .filter_entry(move |entry| match relative(&base, entry) {
            // What has no name in UTF-8 is reported where it is read.
            Ok(path) if !path.is_empty() => rule.of(&path, is_directory(entry)) != Kept::No,
            _ => true,
        })
        .threads(threads)
        .build_parallel();
    let (sender, receiver) = mpsc::channel();
    walker.run(|| {
        let sender = sender.clone();
        Box::new(move |entry| {
            let result = entry.map_err(|error| unreadable(root, error)).and_then(|entry| look(root, &entry, keeps));
            let stop = result.is_err();
            match result.transpose().map(|result| sender.send(result)) {
                Some(Err(_)) => WalkState::Quit,
                _ if stop => WalkState::Quit,
                _ => WalkState::Continue,
            }
        })
    });
    drop(sender);
    let mut walked = Walked::default();
    for seen in receiver {
        match seen? {
            Seen::Found(found) => walked.found.push(found),
            Seen::LeftOut(left_out) => walked.left_out.push(left_out),
        }
    }
    walked.found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    walked.left_out.sort_unstable();
    Ok(walked)
}

fn relative(root: &Path, entry: &DirEntry) -> Result<String, Error> {
    let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
    relative.to_str().map(str::to_owned).ok_or_else(|| Error::Name { path: relative.to_owned() })
}

fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_some_and(|kind| kind.is_dir())
}

fn unreadable(root: &Path, error: ignore::Error) -> Error {
    match error {
        ignore::Error::WithDepth { err, .. } => unreadable(root, *err),
        ignore::Error::WithPath { path, err } if err.io_error().is_some() => {
            let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
            let source = err.into_io_error().unwrap_or_else(|| std::io::Error::other("unreadable"));
            Error::Read { path, source }
        }
        other => Error::Walk(other),
    }
}

fn look(root: &Path, entry: &DirEntry, keeps: &Keeps) -> Result<Option<Seen>, Error> {
    let path = relative(root, entry)?;
    let Some(kind) = entry.file_type().filter(|_| !path.is_empty()) else { return Ok(None) };
    let read = |source| Error::Read { path: path.clone().into(), source };
    let kind = if kind.is_symlink() {
        let target = std::fs::read_link(entry.path()).map_err(read)?;
        let target = target.to_str().ok_or_else(|| Error::Name { path: target.clone() })?;
        Kind::Symlink { target: target.to_owned() }
    } else if kind.is_dir() {
        if keeps.of(&path, true) == Kept::IfNeeded {
            return Ok(None);
        }
        let mode = entry.metadata().map_err(|error| unreadable(root, error))?.permissions().mode();
        Kind::Directory { mode: exact_mode(mode, true) }
    } else if kind.is_file() {
        let metadata = entry.metadata().map_err(|error| unreadable(root, error))?;
        let mode = metadata.permissions().mode();
        let executable = mode & 0o100 != 0;
        Kind::File { stat: Stat::new(&metadata), executable, mode: exact_mode(mode, executable) }
    } else if kind.is_socket() || kind.is_fifo() {
        let mode = entry.metadata().map_err(|error| unreadable(root, error))?.permissions().mode() & 0o7777;
        let executable = mode & 0o100 != 0;
        let type_bits = if kind.is_fifo() { PIPE } else { 0 };
        Kind::Empty { mode: exact_mode(type_bits | mode, executable), executable }
    } else if kind.is_block_device() || kind.is_char_device() {
        return Ok(Some(Seen::LeftOut(LeftOut { path, why: Why::Special })));
    } else {
        return Ok(None);
    };
    Ok(Some(Seen::Found(Found { path, kind })))
}
