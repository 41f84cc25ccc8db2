//! Determines which files belong to a tree.
//!
//! In a repository git decides: files in its index are included, whatever `.gitignore` says, and so are files that it
//! neither tracks nor ignores. Elsewhere everything is included except what [`owned`] recognises as created by tools.
//! `.kilnignore`, with the syntax of `.gitignore`, applies in both. `.git` and directories with Kiln's own output are
//! never included. Empty directories are omitted, as in git: a fresh clone and a used one yield the same tree.

use std::collections::HashMap;
use std::fs::{FileType, Metadata};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ignore::{WalkBuilder, WalkState};

use super::excluded::Excluded;
use super::states::States;
use super::{Error, OUTPUT_RECORD, SHARED_OUTPUT_RECORD, Stat, git, owned};

/// A file or link in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Path relative to the root, with `/` between the parts.
    pub path: String,
    /// Its type.
    pub kind: Kind,
}

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its state during the walk.
        stat: Stat,
        /// Whether its owner may execute it.
        executable: bool,
        /// Its permission bits, if they are kept.
        mode: Option<u32>,
    },
    /// A symbolic link; of a project, one that stays in the tree.
    Symlink {
        /// Its target.
        target: String,
    },
    /// A directory that is kept for itself, with its permission bits.
    Directory {
        /// Its permission bits.
        mode: Option<u32>,
    },
    /// What has no content: a named pipe, or a socket, which becomes an empty file.
    Empty {
        /// Its permission bits, with those of a pipe.
        mode: Option<u32>,
        /// Whether its owner may execute it.
        executable: bool,
    },
}

/// A tree's files, and what was left out in addition to what git ignores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walked {
    /// All files and links, sorted by path.
    pub found: Vec<Found>,
    /// Sorted by path.
    pub left_out: Vec<LeftOut>,
}

/// A path that is not in the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// Path relative to the root; a directory's stands for everything below it.
    pub path: String,
    /// The reason.
    pub why: Why,
}

/// Why a path is not in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Git ignores it.
    Git,
    /// A `.kilnignore` excludes it.
    KilnIgnore,
    /// It contains values for a single machine, often secret: `.env`.
    Environment,
    /// A tool created it, and a build recreates it: `node_modules`, `target`.
    Made,
    /// Kiln's own output.
    Output,
    /// A socket, a named pipe or a device, which has no content.
    Special,
}

/// Walks an absolute directory, or only these parts of it, given as relative paths.
pub fn walk(root: &Path, parts: &[String]) -> Result<Walked, Error> {
    let mut walked = Walked::default();
    let whole = [String::new()];
    for part in if parts.is_empty() { &whole } else { parts } {
        let full = root.join(part);
        let metadata = full.symlink_metadata().map_err(|source| Error::Read { path: part.into(), source })?;
        if metadata.is_dir() {
            let below = walk_part(root, part)?;
            walked.found.extend(below.found);
            walked.left_out.extend(below.left_out);
        } else {
            walked.found.extend(look(root, &full, metadata.file_type(), || Ok(State::new(&metadata)))?);
        }
    }
    walked.found.sort_by(|one, other| one.path.cmp(&other.path));
    walked.found.dedup_by(|one, other| one.path == other.path);
    walked.left_out.sort_unstable();
    walked.left_out.dedup();
    Ok(walked)
}

/// Walks a directory below the root; paths in the result are relative to the root.
fn walk_part(root: &Path, part: &str) -> Result<Walked, Error> {
    let dir = root.join(part);
    let in_git = git::work_tree(&dir).is_some();
    let (seen, tracked) = std::thread::scope(|scope| {
        let tracked = scope.spawn(|| git::tracked(&dir));
        // Whether a directory belongs to a repository is known immediately; listing its tracked files takes git a
        // moment.
        let seen = see(root, &dir, in_git);
        (seen, tracked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (mut walked, repositories) = match (seen?, tracked?) {
        // A directory that the surrounding repository ignores does not belong to that repository.
        (_, Some(tracked)) if tracked.is_empty() && git::is_ignored(&dir) => see(root, &dir, false)?,
        (seen, Some(tracked)) => add_tracked(root, seen, below(part, tracked))?,
        // A `.git` that is not a repository.
        (_, None) if in_git => see(root, &dir, false)?,
        (seen, None) => seen,
    };
    for inner in repositories {
        // A submodule, or a clone inside the tree: its own index decides below it.
        if let Some(tracked) = git::tracked(&root.join(&inner))? {
            (walked, _) = add_tracked(root, (walked, Vec::new()), below(&inner, tracked))?;
        }
    }
    if cfg!(windows) {
        let named = |(path, what): (String, _)| (if part.is_empty() { path } else { format!("{part}/{path}") }, what);
        super::programs::correct(root, &mut walked.found, &git::staged(&dir).into_iter().map(named).collect())?;
    }
    Ok(walked)
}

/// Converts paths relative to a directory to paths relative to the root.
fn below(directory: &str, paths: Vec<String>) -> Vec<String> {
    if directory.is_empty() {
        return paths;
    }
    paths.into_iter().map(|path| format!("{directory}/{path}")).collect()
}

/// The result of a walk: the files, and the directories of nested repositories.
type Seen = (Walked, Vec<String>);

/// The files in a directory that no rule excludes, relative to the root.
fn see(root: &Path, dir: &Path, in_git: bool) -> Result<Seen, Error> {
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
    let left_out: Arc<Mutex<Vec<LeftOut>>> = Arc::default();
    let repositories: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noted, nested) = (Arc::clone(&left_out), Arc::clone(&repositories));
    let (base, start) = (root.to_owned(), dir.to_owned());
    let walker = WalkBuilder::new(dir)
        .hidden(false)
        .ignore(false)
        .git_ignore(in_git)
        .git_exclude(in_git)
        .git_global(in_git)
        .require_git(in_git)
        .parents(in_git)
        .add_custom_ignore_filename(".kilnignore")
        .filter_entry(move |entry| {
            if entry.depth() == 0 {
                return true;
            }
            let Some(path) = kiln_system::text(relative(&base, entry.path())) else { return true };
            if entry.file_name() == ".git" {
                if let Some(inner) = path.strip_suffix("/.git").filter(|inner| base.join(inner) != start) {
                    nested.lock().unwrap_or_else(PoisonError::into_inner).push(inner.to_owned());
                }
                return false;
            }
            let Some(why) = left_out_by_name(entry, in_git) else { return true };
            if entry.file_name() != SHARED_OUTPUT_RECORD {
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.push(LeftOut { path: path.into_owned(), why });
            }
            false
        })
        .threads(threads)
        .build_parallel();
    let results: Mutex<Vec<Result<Vec<Found>, Error>>> = Mutex::default();
    walker.run(|| {
        let mut reader = Reader::new(root, &results);
        Box::new(move |entry| match entry {
            Ok(entry) => reader.look_at(&entry),
            Err(error) => reader.fail(error.into()),
        })
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    for result in results {
        found.append(&mut result?);
    }
    // Each thread's own are in order already, which this sort makes use of.
    found.sort_by(|one, other| one.path.cmp(&other.path));
    let take = |all: &Mutex<Vec<LeftOut>>| std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner));
    let mut nested = std::mem::take(&mut *repositories.lock().unwrap_or_else(PoisonError::into_inner));
    nested.sort();
    Ok((Walked { found, left_out: take(&left_out) }, nested))
}

fn left_out_by_name(entry: &ignore::DirEntry, in_git: bool) -> Option<Why> {
    let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
    if is_dir {
        if entry.path().join(OUTPUT_RECORD).is_file() {
            return Some(Why::Output);
        }
        return owned::is_made(entry.path()).then_some(Why::Made);
    }
    if entry.file_name() == SHARED_OUTPUT_RECORD {
        return Some(Why::Output);
    }
    (!in_git && owned::is_environment(entry.file_name())).then_some(Why::Environment)
}

/// Adds files in an index that the walk omitted because `.gitignore` matches them or tools usually create them.
fn add_tracked(root: &Path, (mut walked, nested): Seen, tracked: Vec<String>) -> Result<Seen, Error> {
    let absent = absent(&walked.found, tracked);
    let mut excluded = Excluded::new(root);
    let mut plain: HashMap<PathBuf, bool> = HashMap::new();
    let mut repositories = nested;
    for path in absent {
        let full = root.join(&path);
        // Deleted, not checked out, or below what is now a link.
        let Ok(metadata) = full.symlink_metadata() else { continue };
        if !is_below_directories(root, &path, &mut plain) {
            continue;
        }
        if excluded.names(&path, metadata.is_dir()) {
            walked.left_out.push(LeftOut { path, why: Why::KilnIgnore });
        } else if metadata.is_dir() {
            // A submodule that `.gitignore` matches; the walk has seen any other directory.
            if full.join(".git").exists() && !repositories.contains(&path) {
                let (inner, nested) = see(root, &full, true)?;
                walked.found.extend(inner.found);
                repositories.extend(nested);
                repositories.push(path);
            }
        } else {
            walked.found.extend(look(root, &full, metadata.file_type(), || Ok(State::new(&metadata)))?);
        }
    }
    walked.found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok((walked, repositories))
}

/// The paths that were not found, in order.
fn absent(found: &[Found], mut paths: Vec<String>) -> Vec<String> {
    debug_assert!(found.is_sorted_by(|one, other| one.path <= other.path));
    // Git lists them in order: then this takes no time.
    paths.sort();
    let mut found = found.iter().map(|found| found.path.as_str()).peekable();
    paths.retain(|path| {
        while found.next_if(|before| *before < path.as_str()).is_some() {}
        found.peek() != Some(&path.as_str())
    });
    paths
}

/// Whether no component of a path except the last is a link.
fn is_below_directories(root: &Path, path: &str, known: &mut HashMap<PathBuf, bool>) -> bool {
    Path::new(path).ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).all(|above| {
        let is_dir = || root.join(above).symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        *known.entry(above.to_owned()).or_insert_with(is_dir)
    })
}

/// What one thread of a walk has found. It is handed over, sorted, when the thread ends.
struct Reader<'a> {
    root: &'a Path,
    states: States,
    found: Result<Vec<Found>, Error>,
    results: &'a Mutex<Vec<Result<Vec<Found>, Error>>>,
}

impl<'a> Reader<'a> {
    fn new(root: &'a Path, results: &'a Mutex<Vec<Result<Vec<Found>, Error>>>) -> Self {
        Self { root, states: States::default(), found: Ok(Vec::new()), results }
    }

    fn look_at(&mut self, entry: &ignore::DirEntry) -> WalkState {
        let looked = match entry.file_type() {
            Some(kind) if !kind.is_dir() => look(self.root, entry.path(), kind, || self.states.of(entry)),
            _ => Ok(None),
        };
        match (looked, &mut self.found) {
            (Ok(looked), Ok(found)) => {
                found.extend(looked);
                WalkState::Continue
            }
            (Err(error), _) => self.fail(error),
            (_, Err(_)) => WalkState::Quit,
        }
    }

    fn fail(&mut self, error: Error) -> WalkState {
        self.found = Err(error);
        WalkState::Quit
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut found = std::mem::replace(&mut self.found, Ok(Vec::new()));
        if let Ok(found) = &mut found {
            found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        }
        self.results.lock().unwrap_or_else(PoisonError::into_inner).push(found);
    }
}

/// A file's state, as the walk needs it.
pub(super) struct State {
    pub(super) stat: Stat,
    pub(super) executable: bool,
}

impl State {
    pub(super) fn new(metadata: &Metadata) -> Self {
        Self { stat: Stat::new(metadata), executable: kiln_system::is_executable(metadata) }
    }
}

fn look(
    root: &Path,
    full: &Path,
    file_type: FileType,
    state: impl FnOnce() -> Result<State, Error>,
) -> Result<Option<Found>, Error> {
    let relative = relative(root, full);
    let Some(path) = kiln_system::text(relative) else {
        return Err(Error::Name { path: relative.to_owned() });
    };
    if file_type.is_dir() {
        return Ok(None);
    }
    let read = |source| Error::Read { path: relative.to_owned(), source };
    let kind = if file_type.is_symlink() {
        let target = std::fs::read_link(full).map_err(read)?;
        Kind::Symlink { target: inside(&path, &target)? }
    } else if file_type.is_file() {
        let State { stat, executable } = state()?;
        Kind::File { stat, executable, mode: None }
    } else {
        return Err(Error::Special { path: relative.to_owned(), kind: kiln_system::special(file_type) });
    };
    Ok(Some(Found { path: path.into_owned(), kind }))
}

/// A path below the root, both as they are written: much cheaper than comparing the parts one by one.
fn relative<'a>(root: &Path, full: &'a Path) -> &'a Path {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let rest = full.as_os_str().as_bytes().strip_prefix(root.as_os_str().as_bytes());
        if let Some(below) = rest.and_then(|rest| rest.strip_prefix(b"/")) {
            return Path::new(std::ffi::OsStr::from_bytes(below));
        }
    }
    full.strip_prefix(root).unwrap_or(full)
}

/// The link's target, if resolving it from the link never goes above the root. It need not exist.
pub(super) fn inside(path: &str, target: &Path) -> Result<String, Error> {
    let leaves = || Error::Link { path: path.to_owned(), target: target.display().to_string() };
    let text = target.to_str().ok_or_else(|| Error::Name { path: target.to_owned() })?;
    let mut depth = path.matches('/').count();
    for component in target.components() {
        match component {
            Component::Prefix(_) | Component::RootDir => return Err(leaves()),
            Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(leaves)?,
            Component::Normal(_) => depth = depth.saturating_add(1),
            Component::CurDir => {}
        }
    }
    Ok(kiln_system::text(Path::new(text)).unwrap_or_default().into_owned())
}
