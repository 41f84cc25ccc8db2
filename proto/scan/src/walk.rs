//! Which files a tree consists of: `.gitignore` and `.kilnignore` are honoured, hidden files belong to it, `.git` does not.
//!
//! Empty directories are left out, as git leaves them out: a fresh clone and a used one are the same tree.

use std::fs::FileType;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;

use ignore::{WalkBuilder, WalkState};

use super::{Error, Stat};

/// A name in the tree that is no directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Relative to the root, with `/` between the parts.
    pub path: String,
    /// What it is.
    pub kind: Kind,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its state when the walk came by.
        stat: Stat,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link that stays in the tree.
    Symlink {
        /// Where it points.
        target: String,
    },
}

/// All files and links below an absolute directory, sorted by path.
pub fn walk(root: &Path, leave_out: &[PathBuf]) -> Result<Vec<Found>, Error> {
    let inside: Vec<PathBuf> = leave_out.iter().filter(|path| *path != root).cloned().collect();
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
    // With this set, the ignore files of a checkout's own directories count, and none above it.
    let in_git = root.ancestors().any(|dir| dir.join(".git").exists());
    let walker = WalkBuilder::new(root)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        .require_git(in_git)
        .parents(in_git)
        .add_custom_ignore_filename(".kilnignore")
        .filter_entry(move |entry| entry.file_name() != ".git" && !inside.iter().any(|path| path == entry.path()))
        .threads(threads)
        .build_parallel();
    let (sender, receiver) = mpsc::channel();
    walker.run(|| {
        let sender = sender.clone();
        Box::new(move |entry| {
            let result = entry.map_err(Error::from).and_then(|entry| look(root, &entry));
            let stop = result.is_err();
            match result.transpose().map(|result| sender.send(result)) {
                Some(Err(_)) => WalkState::Quit,
                _ if stop => WalkState::Quit,
                _ => WalkState::Continue,
            }
        })
    });
    drop(sender);
    let mut found = receiver.into_iter().collect::<Result<Vec<Found>, Error>>()?;
    found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn look(root: &Path, entry: &ignore::DirEntry) -> Result<Option<Found>, Error> {
    let full = entry.path();
    let relative = full.strip_prefix(root).unwrap_or(full);
    let Some(path) = relative.to_str() else {
        return Err(Error::Name { path: relative.to_owned() });
    };
    let Some(file_type) = entry.file_type().filter(|_| !path.is_empty()) else { return Ok(None) };
    if file_type.is_dir() {
        return Ok(None);
    }
    let read = |source| Error::Read { path: relative.to_owned(), source };
    let kind = if file_type.is_symlink() {
        let target = std::fs::read_link(full).map_err(read)?;
        Kind::Symlink { target: inside(path, &target)? }
    } else if file_type.is_file() {
        let metadata = entry.metadata()?;
        Kind::File { stat: Stat::new(&metadata), executable: metadata.permissions().mode() & 0o100 != 0 }
    } else {
        return Err(Error::Special { path: relative.to_owned(), kind: special(file_type) });
    };
    Ok(Some(Found { path: path.to_owned(), kind }))
}

/// The link's target, where following its parts from the link never goes above the root. It need not exist.
fn inside(path: &str, target: &Path) -> Result<String, Error> {
    let leaves = || Error::Link { path: path.to_owned(), target: target.display().to_string() };
    let text = target.to_str().ok_or_else(|| Error::Name { path: target.to_owned() })?;
    let mut depth = path.matches('/').count();
    for component in target.components() {
        match component {
            Component::Prefix(_) | Component::RootDir => return Err(leaves()),
            Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(leaves)?,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
        }
    }
    Ok(text.to_owned())
}

fn special(file_type: FileType) -> &'static str {
    if file_type.is_socket() {
        "socket"
    } else if file_type.is_fifo() {
        "named pipe"
    } else if file_type.is_block_device() || file_type.is_char_device() {
        "device"
    } else {
        "special file"
    }
}
