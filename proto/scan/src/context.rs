//! Lists a directory that a Dockerfile copies from: everything but what `.dockerignore` names, whatever git says. As with BuildKit, a
//! socket becomes an empty file and devices are left out.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use kiln_trees::tree::{PIPE, exact_mode};

use super::Error;
use super::listing::{self, Directory, Entry, Looked, Sort};
use super::walk::{Found, Kind, LeftOut, Walked, Why};

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

/// Walks an absolute directory, on all processors.
pub(super) fn walk(root: &Path, keeps: &Keeps) -> Result<Walked, Error> {
    let look = |directory: &Directory<'_>, entry: &Entry| match directory.path_of(entry) {
        Some(path) => look(directory, entry, path, keeps),
        // What has no name in UTF-8 is left out only with the directory that it is in.
        None => Err(Error::Name { path: directory.shown(entry) }),
    };
    let mut walked = Walked::default();
    for seen in listing::read(root, &look)? {
        match seen {
            Seen::Found(found) => walked.found.push(found),
            Seen::LeftOut(left_out) => walked.left_out.push(left_out),
        }
    }
    walked.found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    walked.left_out.sort_unstable();
    Ok(walked)
}

/// What is found, or left out.
enum Seen {
    Found(Found),
    LeftOut(LeftOut),
}

fn look(directory: &Directory<'_>, entry: &Entry, path: String, keeps: &Keeps) -> Result<Looked<Seen>, Error> {
    let read = |source| Error::Read { path: path.clone().into(), source };
    let sort = entry.sort(directory).map_err(read)?;
    let is_directory = sort == Sort::Directory;
    let kept = keeps.of(&path, is_directory);
    let descends = is_directory && kept != Kept::No;
    let kind = match sort {
        _ if kept == Kept::No => None,
        Sort::Symlink => match entry.target(directory).map_err(read)? {
            Some(target) => Some(Kind::Symlink { target }),
            None => return Err(Error::Name { path: path.into() }),
        },
        Sort::Directory if kept == Kept::IfNeeded => None,
        Sort::Directory => {
            let (_, mode) = entry.state(directory).map_err(read)?;
            Some(Kind::Directory { mode: exact_mode(mode, true) })
        }
        Sort::File => {
            let (stat, mode) = entry.state(directory).map_err(read)?;
            let executable = mode & 0o100 != 0;
            Some(Kind::File { stat, executable, mode: exact_mode(mode, executable) })
        }
        Sort::Socket | Sort::Pipe => {
            let (_, mode) = entry.state(directory).map_err(read)?;
            let executable = mode & 0o100 != 0;
            let type_bits = if sort == Sort::Pipe { PIPE } else { 0 };
            Some(Kind::Empty { mode: exact_mode(type_bits | mode, executable), executable })
        }
        Sort::Device => {
            return Ok(Looked { found: Some(Seen::LeftOut(LeftOut { path, why: Why::Special })), below: None });
        }
        Sort::Unknown => None,
    };
    Ok(Looked { below: descends.then(|| path.clone()), found: kind.map(|kind| Seen::Found(Found { path, kind })) })
}
