//! The output directory: where artifacts arrive on this machine.
//!
//! Invariant: Kiln replaces only what it wrote. A record in the directory lists that; anything else with an artifact's
//! name blocks it, and files modified since Kiln wrote them are moved aside instead of removed.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod record;
mod state;

use std::fs::File;
use std::path::{Path, PathBuf};

use record::{Entry, Record};

/// Why an artifact cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "`{}` contains the source tree `{}`, so artifacts would be mixed with your files; choose a directory of their own, such as \
         `--output kiln-out`",
        .dir.display(), .source_tree.display()
    )]
    AboveSource { dir: PathBuf, source_tree: PathBuf },
    #[error(
        "`{}` is in the source tree and holds files that Kiln did not write (such as `{found}`); choose a new directory for \
         `--output`, such as `kiln-out`",
        .dir.display()
    )]
    NotOwn { dir: PathBuf, found: String },
    #[error(
        "`{}` is in the way: Kiln did not write it and does not replace it; move it, or fetch the artifact to another directory: \
         `kiln fetch {id} --output DIR`",
        .path.display()
    )]
    InTheWay { path: PathBuf, id: String },
    #[error("`{}` is not a directory; choose another `--output`", .path.display())]
    NotDirectory { path: PathBuf },
    #[error(
        "cannot read `{}`, Kiln's record of the directory ({reason}); remove it if you do not need the artifacts there",
        .path.display()
    )]
    Record { path: PathBuf, reason: String },
    #[error("cannot write `{}`; expected a writable directory", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A directory that artifacts are written to.
#[derive(Debug, Clone)]
pub struct Output {
    dir: PathBuf,
}

/// An artifact that was put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its path.
    pub path: PathBuf,
    /// Where its predecessor was moved, if it had been modified.
    pub kept: Option<PathBuf>,
}

impl Output {
    /// The directory `dir`, which is created when something is first written to it.
    ///
    /// # Errors
    /// [`Error::AboveSource`] and [`Error::NotOwn`] if writing there would mix artifacts with the files of `source_tree`.
    pub fn new(dir: &Path, source_tree: Option<&Path>) -> Result<Self, Error> {
        let real = resolve(dir);
        if let Some(tree) = source_tree {
            if tree.starts_with(&real) {
                return Err(Error::AboveSource { dir: dir.to_owned(), source_tree: tree.to_owned() });
            }
            if real.starts_with(tree)
                && !real.join(record::OWN).is_file()
                && let Some(found) = any_entry(&real)
            {
                return Err(Error::NotOwn { dir: dir.to_owned(), found });
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// A directory below this one.
    pub fn below(&self, name: &str) -> Self {
        Self { dir: self.dir.join(name) }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates the directory. If it was missing or empty, it belongs to Kiln from then on: git ignores it, and later
    /// builds exclude it from their sources.
    pub fn create(&self) -> Result<(), Error> {
        let write = |source| Error::Write { path: self.dir.clone(), source };
        match self.dir.metadata() {
            Ok(metadata) if !metadata.is_dir() => return Err(Error::NotDirectory { path: self.dir.clone() }),
            Ok(_) => {}
            Err(_) => std::fs::create_dir_all(&self.dir).map_err(write)?,
        }
        if any_entry(&self.dir).is_none() {
            Record::default().save(&self.dir.join(record::OWN))?;
            std::fs::write(self.dir.join(".gitignore"), "*\n").map_err(write)?;
        }
        Ok(())
    }

    /// A directory in which new content can be prepared, on the same file system.
    pub fn staging(&self) -> Result<tempfile::TempDir, Error> {
        self.create()?;
        let write = |source| Error::Write { path: self.dir.clone(), source };
        tempfile::Builder::new().prefix(".kiln-").tempdir_in(&self.dir).map_err(write)
    }

    /// The path of `name`, if Kiln wrote this `content` there and it has not been modified.
    pub fn current(&self, name: &str, content: &str) -> Option<PathBuf> {
        let path = self.dir.join(name);
        let record = Record::load(&self.record_path()).ok()?;
        let entry = record.entries.get(name).filter(|entry| entry.content == content)?;
        let state = state::of(&path).ok()??;
        entry.states.contains(&state).then_some(path)
    }

    /// Moves `staged`, a path on the same file system, to `name`. `content` identifies it, and `id` is the artifact's.
    ///
    /// # Errors
    /// [`Error::InTheWay`] if something is there that Kiln did not write.
    pub fn place(&self, name: &str, staged: &Path, content: &str, id: &str) -> Result<Placed, Error> {
        let path = self.dir.join(name);
        let write = |source| Error::Write { path: path.clone(), source };
        let _lock = self.lock()?;
        let record_path = self.record_path();
        let mut record = Record::load(&record_path)?;
        let known = record.entries.get(name).map(|entry| entry.states.clone()).unwrap_or_default();
        let old = state::of(&path).map_err(write)?;
        if old.is_some() && known.is_empty() {
            return Err(Error::InTheWay { path, id: id.to_owned() });
        }
        let Some(new) = state::of(staged).map_err(write)? else {
            return Err(write(std::io::ErrorKind::NotFound.into()));
        };
        // Both belong to Kiln until the new one is in place, so that a process killed in between leaves no orphan.
        let states = old.iter().filter(|old| known.contains(old)).cloned().chain([new.clone()]).collect();
        record.entries.insert(name.to_owned(), Entry { content: content.to_owned(), states });
        record.save(&record_path)?;
        let mut kept = None;
        if let Some(old) = old {
            if !known.contains(&old) {
                let aside = self.free_name(name);
                std::fs::rename(&path, &aside).map_err(write)?;
                kept = Some(aside);
            } else if path.symlink_metadata().is_ok_and(|old| old.is_dir()) || staged.is_dir() {
                let aside = tempfile::Builder::new().prefix(".kiln-old-").tempdir_in(&self.dir).map_err(write)?;
                std::fs::rename(&path, aside.path().join("it")).map_err(write)?;
            }
        }
        std::fs::rename(staged, &path).map_err(write)?;
        record.entries.insert(name.to_owned(), Entry { content: content.to_owned(), states: vec![new] });
        record.save(&record_path)?;
        Ok(Placed { path, kept })
    }

    /// Kiln's own directory has its record under another name than a directory that Kiln only wrote something to.
    fn record_path(&self) -> PathBuf {
        let own = self.dir.join(record::OWN);
        if own.is_file() { own } else { self.dir.join(record::SHARED) }
    }

    fn free_name(&self, name: &str) -> PathBuf {
        let mut number = 1_u32;
        loop {
            let path = self.dir.join(format!("{name}.kept-{number}"));
            if path.symlink_metadata().is_err() {
                return path;
            }
            number = number.saturating_add(1);
        }
    }

    /// Only one process at a time changes the directory. Released on drop.
    fn lock(&self) -> Result<File, Error> {
        let lock = || {
            let file = kiln_system::lock_of(&self.dir)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|source| Error::Write { path: self.dir.clone(), source })
    }
}

/// The name of any entry in a directory; `None` if it is empty or not a directory.
fn any_entry(dir: &Path) -> Option<String> {
    let entry = std::fs::read_dir(dir).ok()?.find_map(Result::ok)?;
    Some(entry.file_name().to_string_lossy().into_owned())
}

/// The absolute path, with links resolved in the part that exists.
fn resolve(path: &Path) -> PathBuf {
    let mut existing = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = Vec::new();
    loop {
        if let Ok(real) = existing.canonicalize() {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (existing.file_name().map(ToOwned::to_owned), existing.parent().map(Path::to_owned)) {
            (Some(name), Some(parent)) => {
                rest.push(name);
                existing = parent;
            }
            // `..` below something that does not exist, or the root.
            _ => return std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        }
    }
}

/// The output directory for a build whose sources are elsewhere. If it is in a repository, that repository's files are
/// protected.
///
/// # Errors
/// As for [`Output::new`].
pub fn of_user(dir: &Path) -> Result<Output, Error> {
    let real = resolve(dir);
    let tree = real.ancestors().find(|dir| dir.join(".git").exists());
    Output::new(dir, tree)
}

#[cfg(test)]
mod tests;
