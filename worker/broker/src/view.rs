//! The files of a job as its own processes see them.
//!
//! Invariant: no path leads out of the job's root, whatever links the job makes, and nothing of it is opened for writing.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_calls::manifest::{Manifest, Present, Read};
use kiln_calls::scan::Sources;
use kiln_calls::{Files, Kind};
use kiln_proto::digest::{Digest, DigestFunction};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::area::Area;

/// Largest file that is hashed for a call.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Most bytes of a source that are read for what it includes.
const MAX_SOURCE_BYTES: u64 = 64 << 20;
/// Maximum number of symbolic links in a path.
const MAX_LINKS: usize = 40;
/// How old a file must be so that a later change shows in its times.
const SETTLED: Duration = Duration::from_millis(100);
/// How often a path is resolved while the machine changes.
const ATTEMPTS: u32 = 10_000;
/// From how many paths in one directory it is cheaper to list it than to look at each.
const MANY: usize = 8;
/// Maximum number of directories whose names are remembered.
const MAX_LISTINGS: usize = 4_000;
/// Maximum number of system files whose digests are remembered.
const MAX_SYSTEM_FILES: usize = 100_000;

/// What tells a file that has been hashed from a changed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(data: &std::fs::Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }

    /// Whether a change after now would show.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos) = self.changed;
        let changed = Duration::new(seconds.max(0) as u64, nanos.clamp(0, 999_999_999) as u32);
        now.checked_sub(changed).is_some_and(|age| age > SETTLED)
    }

    /// Whether two mounts show the same file: overlays have devices of their own, and the inodes of their layers.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.inode, self.size, self.modified, self.changed) == (other.inode, other.size, other.modified, other.changed)
    }
}

/// Digests of the system's files, which all jobs share and none can change.
#[derive(Debug, Default)]
pub(super) struct SystemFiles {
    digests: Mutex<HashMap<Stamp, Digest>>,
}

/// A job's files.
#[derive(Debug)]
pub(super) struct View {
    root: OwnedFd,
    area: Area,
    opened_area: OwnedFd,
    /// The files that all jobs share; none if the job's root is of its own.
    system: Option<Arc<SystemFiles>>,
    own: Mutex<HashMap<PathBuf, (Stamp, Digest)>>,
    names: Mutex<HashMap<PathBuf, (Stamp, Names)>>,
}

/// The names in a directory.
type Names = Arc<HashSet<OsString>>;

/// Directories in which many paths of one question are; none: there is no such directory.
#[derive(Default)]
pub(super) struct Directories(HashMap<PathBuf, Option<Names>>);

/// What is at a path.
#[derive(Debug)]
pub(super) enum Node {
    Absent,
    Directory,
    /// A regular file, opened as a place only.
    File(Place),
    Other,
}

/// A regular file that was found.
#[derive(Debug)]
pub(super) struct Place {
    found: OwnedFd,
    pub(super) stamp: Stamp,
    pub(super) executable: bool,
}

impl View {
    /// The files below this root directory, of which those in the area are the job's own; `system` are those that all jobs share, if this
    /// one has them.
    ///
    /// # Errors
    /// If the job has ended.
    pub(super) fn open(root: &Path, area: Area, system: Option<Arc<SystemFiles>>) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let below = area.path().strip_prefix("/").ok().filter(|below| !below.as_os_str().is_empty());
        let opened_area = rustix::fs::openat(&root, below.unwrap_or(Path::new(".")), flags, Mode::empty())?;
        Ok(Self { root, area, opened_area, system, own: Mutex::default(), names: Mutex::default() })
    }

    /// The files of a cell of this job, below this root directory.
    ///
    /// # Errors
    /// If the cell has ended.
    pub(super) fn of_cell(&self, root: &Path) -> std::io::Result<Self> {
        Self::open(root, self.area, self.system.as_ref().map(|_| Arc::default()))
    }

    /// Where the job's own files are.
    pub(super) fn area(&self) -> Area {
        self.area
    }

    /// Whether other jobs may have something else at a path.
    pub(super) fn is_own(&self, path: &Path) -> bool {
        self.system.is_none() || self.area.has(path)
    }

    fn at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        resolved(&self.root, below, flags, resolve)
    }

    /// What is at an absolute path, links followed.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub(super) fn look(&self, path: &Path) -> std::io::Result<Node> {
        use rustix::io::Errno;
        let found = match self.at(path, OFlags::PATH) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Node::Absent),
            Err(error) => return Err(error.into()),
        };
        let file = File::from(found);
        let data = file.metadata()?;
        Ok(if data.is_file() {
            let executable = data.mode() & 0o100 != 0;
            Node::File(Place { stamp: Stamp::of(&data), found: file.into(), executable })
        } else if data.is_dir() {
            Node::Directory
        } else {
            Node::Other
        })
    }

    /// The directories that are worth to be listed for these paths.
    pub(super) fn directories<'a>(&self, paths: impl Iterator<Item = &'a Path>) -> Directories {
        let mut counts: HashMap<&Path, usize> = HashMap::new();
        paths.filter_map(Path::parent).for_each(|parent| *counts.entry(parent).or_default() += 1);
        let many = counts.into_iter().filter(|(_, count)| *count >= MANY);
        Directories(many.filter_map(|(at, _)| Some((at.to_owned(), self.names_in(at).ok()?))).collect())
    }

    /// What is at an absolute path, as [`look`](Self::look), in directories that have been listed.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub(super) fn look_within(&self, directories: &Directories, path: &Path) -> std::io::Result<Node> {
        let listed = path.parent().zip(path.file_name()).map(|(parent, name)| (directories.0.get(parent), name));
        match listed {
            Some((Some(None), _)) => Ok(Node::Absent),
            Some((Some(Some(names)), name)) if !names.contains(name) => Ok(Node::Absent),
            _ => self.look(path),
        }
    }

    /// The names in a directory; none if there is no such directory.
    fn names_in(&self, path: &Path) -> std::io::Result<Option<Names>> {
        use rustix::io::Errno;
        let directory = match self.at(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => File::from(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stamp = Stamp::of(&directory.metadata()?);
        if let Some((known, names)) = self.names.lock().get(path)
            && *known == stamp
        {
            return Ok(Some(names.clone()));
        }
        // A name that appears while the directory is listed shows in its times only if these are not of this moment.
        let is_settled = stamp.is_settled();
        let names = names(directory.into())?.into_iter().map(OsString::from_vec).collect();
        let names = Arc::new(names);
        if is_settled {
            let mut known = self.names.lock();
            if known.len() >= MAX_LISTINGS {
                known.clear();
            }
            known.insert(path.to_owned(), (stamp, Arc::clone(&names)));
        }
        Ok(Some(names))
    }

    /// Whether there is nothing at a path, or a regular file and no link to one.
    ///
    /// # Errors
    /// If there is something else, or nothing that it could be in.
    pub(super) fn is_plain(&self, path: &Path) -> Result<(), super::cell::Reason> {
        let parent = path.parent().ok_or("outside")?;
        if !matches!(self.look(parent), Ok(Node::Directory)) {
            return Err("no_directory");
        }
        let found = match self.at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            found => File::from(found.map_err(|_| "output_not_a_file")?),
        };
        let is_file = found.metadata().is_ok_and(|data| data.is_file());
        if is_file { Ok(()) } else { Err("output_not_a_file") }
    }

    /// A regular file of the job's own making: one that no link and no mount brings in from elsewhere. Only such a file may be given to
    /// others, because this process can read more than the job.
    pub(super) fn look_at_own(&self, below: &Path) -> Option<Place> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let found = resolved(&self.opened_area, below, OFlags::PATH, resolve).ok()?;
        let file = File::from(found);
        let data = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let executable = data.mode() & 0o100 != 0;
        Some(Place { stamp: Stamp::of(&data), found: file.into(), executable })
    }

    /// Opens the file that was found.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn open_place(&self, place: &Place) -> std::io::Result<File> {
        use std::os::fd::AsRawFd;
        File::open(format!("/proc/self/fd/{}", place.found.as_raw_fd()))
    }

    /// The digest of a file at this path.
    ///
    /// # Errors
    /// If it cannot be read, is too large, or changes while it is read.
    pub(super) fn digest_of(&self, path: &Path, place: &Place) -> std::io::Result<Digest> {
        let shared = self.system.as_ref().filter(|_| !self.area.has(path));
        let known = match shared {
            None => self.own.lock().get(path).filter(|(stamp, _)| *stamp == place.stamp).map(|(_, digest)| *digest),
            Some(system) => system.digests.lock().get(&place.stamp).copied(),
        };
        if let Some(digest) = known {
            return Ok(digest);
        }
        if place.stamp.size > MAX_FILE_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let is_settled = place.stamp.is_settled();
        let mut file = self.open_place(place)?;
        let digest = hash(&mut file)?;
        if Stamp::of(&file.metadata()?) != place.stamp {
            return Err(std::io::ErrorKind::ResourceBusy.into());
        }
        match shared {
            None if is_settled => drop(self.own.lock().insert(path.to_owned(), (place.stamp, digest))),
            None => {}
            Some(system) => {
                let mut digests = system.digests.lock();
                if digests.len() >= MAX_SYSTEM_FILES {
                    digests.clear();
                }
                digests.insert(place.stamp, digest);
            }
        }
        Ok(digest)
    }

    /// The digest that is noted for a path with this stamp's file, whichever mount shows it.
    pub(super) fn noted(&self, path: &Path, stamp: &Stamp) -> Option<Digest> {
        let own = self.own.lock();
        own.get(path).filter(|(known, _)| known.is_same_file(stamp)).map(|(_, digest)| *digest)
    }

    /// Where an absolute path leads, if there is something, and the symbolic links on the way with their targets.
    pub(super) fn followed(&self, path: &Path) -> (Option<PathBuf>, Vec<(PathBuf, PathBuf)>) {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let (mut open, mut links) = (path.strip_prefix("/").unwrap_or(path).to_owned(), Vec::new());
        for _ in 0..MAX_LINKS {
            let below = if open.as_os_str().is_empty() { Path::new(".") } else { &open };
            match resolved(&self.root, below, OFlags::PATH, resolve) {
                Ok(_) => return (Some(kiln_calls::absolute(Path::new("/"), &open)), links),
                Err(rustix::io::Errno::LOOP) => {}
                Err(_) => break,
            }
            let Some((next, link)) = self.without_first_link(&open) else { break };
            links.push(link);
            open = next;
        }
        (None, links)
    }

    /// A path below the root with the first symbolic link in it replaced by where it leads; and that link, with its target.
    fn without_first_link(&self, path: &Path) -> Option<(PathBuf, (PathBuf, PathBuf))> {
        let mut walked = PathBuf::new();
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            let at = Path::new("/").join(&walked).join(part);
            let found = self.at(&at, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
            let Ok(target) = rustix::fs::readlinkat(&found, "", Vec::new()) else {
                walked.push(part);
                continue;
            };
            let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
            let led = target.strip_prefix("/").map_or_else(|_| walked.join(&target), Path::to_owned);
            return Some((led.join(parts.as_path()), (kiln_calls::absolute(Path::new("/"), &at), target)));
        }
        None
    }

    /// The names in a directory, and whether each is a directory itself. Links are none.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(super) fn listed(&self, path: &Path) -> std::io::Result<Vec<(PathBuf, bool)>> {
        let directory = self.at(path, OFlags::DIRECTORY)?;
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = std::os::unix::ffi::OsStrExt::from_bytes(name);
                found.push((path.join::<&std::ffi::OsStr>(name), entry.file_type().is_dir()));
            }
        }
        Ok(found)
    }

    /// The names in a directory, as a digest.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(super) fn listing_of(&self, path: &Path) -> std::io::Result<Digest> {
        let mut names = names(self.at(path, OFlags::DIRECTORY)?)?;
        names.sort();
        Ok(DigestFunction::Sha256.digest(&names.join(&0)))
    }
}

/// The names in an open directory.
fn names(directory: OwnedFd) -> std::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Opens a path below a directory. While something is renamed or mounted anywhere on the machine, the kernel cannot tell whether `..`
/// leads outside, and asks to try again (openat2(2)).
fn resolved(directory: &OwnedFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    use rustix::io::Errno;
    for _ in 0..ATTEMPTS {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

pub(super) fn hash(file: &mut File) -> std::io::Result<Digest> {
    let mut hasher = DigestFunction::Sha256.hasher();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

impl Files for View {
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        // What a file says becomes arguments, which compilers print.
        let place = self.look_at_own(self.area.below(path)?)?;
        let mut content = Vec::new();
        let file = self.open_place(&place).ok()?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut content).ok()?;
        Some(content)
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        match self.look(path).ok()? {
            Node::Absent => None,
            Node::Directory => Some(Kind::Directory),
            Node::File(_) => Some(Kind::File),
            Node::Other => Some(Kind::Other),
        }
    }
}

impl Sources for View {
    fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let Ok(Node::File(place)) = self.look(path) else { return None };
        let mut content = Vec::new();
        self.open_place(&place).ok()?.take(MAX_SOURCE_BYTES).read_to_end(&mut content).ok()?;
        Some(content)
    }

    fn directory(&self, path: &Path) -> Option<PathBuf> {
        let (there, _) = self.followed(path);
        there.filter(|there| matches!(self.look(there), Ok(Node::Directory)))
    }
}

impl Present for View {
    fn digest(&self, path: &Path) -> Option<Read> {
        let Ok(Node::File(place)) = self.look(path) else { return None };
        let digest = self.digest_of(path, &place).ok()?;
        Some(Read { digest, executable: place.executable })
    }

    fn absent(&self, path: &Path) -> bool {
        matches!(self.look(path), Ok(Node::Absent))
    }

    fn listing(&self, path: &Path) -> Option<Digest> {
        self.listing_of(path).ok()
    }
}

/// A job's files, of which those that a manifest names are looked at together.
pub(super) struct Compared<'a> {
    view: &'a View,
    directories: Directories,
}

impl<'a> Compared<'a> {
    pub(super) fn new(view: &'a View, manifest: &Manifest) -> Self {
        let paths = manifest.variants().iter().flat_map(|variant| &variant.absent);
        Self { view, directories: view.directories(paths.map(PathBuf::as_path)) }
    }
}

impl Present for Compared<'_> {
    fn digest(&self, path: &Path) -> Option<Read> {
        self.view.digest(path)
    }

    fn absent(&self, path: &Path) -> bool {
        matches!(self.view.look_within(&self.directories, path), Ok(Node::Absent))
    }

    fn listing(&self, path: &Path) -> Option<Digest> {
        self.view.listing(path)
    }
}

/// A path without `.`, `..` and repeated slashes, as far as that can be said without looking at links.
pub(super) fn plain(path: &str) -> PathBuf {
    let is_plain = !path.ends_with('/') && !path.contains("//") && !path.contains("/.");
    if is_plain && path.starts_with('/') {
        return PathBuf::from(path);
    }
    let path = Path::new(path);
    // `x/..` is not `.` if `x` is a link, so such a path is left to whoever resolves it.
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return path.to_owned();
    }
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(directory: &Path) -> View {
        View::open(directory, Area::Build, Some(Arc::default())).expect("expected the directory to be opened")
    }

    #[test]
    fn links_lead_nowhere_outside_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("build")).unwrap();
        std::fs::write(directory.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("secret"), "own").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("build/up")).unwrap();
        std::os::unix::fs::symlink("/secret", root.join("build/absolute")).unwrap();
        let view = view(&root);
        let own = DigestFunction::Sha256.digest(b"own");
        for path in ["/build/up", "/build/absolute", "/build/../../secret"] {
            let path = Path::new(path);
            assert_eq!(view.digest(path).map(|read| read.digest), Some(own), "{}", path.display());
            assert_eq!(view.read(path), None, "{}: expected only the job's own files to be read", path.display());
        }
    }

    #[test]
    fn a_directory_is_told_by_where_its_links_lead() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("build/real/sub")).unwrap();
        for (to, link) in [
            ("real", "build/relative"),
            ("/build/relative/sub", "build/absolute"),
            ("../../../../build/real", "build/above"),
            ("round", "build/round"),
        ] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        std::fs::write(root.join("build/file"), "").unwrap();
        let view = view(root);
        let of = |path: &str| view.directory(Path::new(path)).map(|path| path.display().to_string());
        for path in
            ["/build/real/sub", "/build/relative/sub", "/build/absolute", "/build/above/sub", "/build/real/./sub"]
        {
            assert_eq!(of(path).as_deref(), Some("/build/real/sub"), "{path}");
        }
        for path in ["/build/round", "/build/file", "/build/none", "/build/round/sub"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn a_changed_file_has_another_digest_however_fast_it_changed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("build")).unwrap();
        let file = directory.path().join("build/file");
        let view = view(directory.path());
        for round in 0..50 {
            let content = format!("content {}", round % 10);
            std::fs::write(&file, &content).unwrap();
            let found = view.digest(Path::new("/build/file")).unwrap().digest;
            assert_eq!(found, DigestFunction::Sha256.digest(content.as_bytes()), "round {round}");
        }
    }

    #[test]
    fn what_is_not_there_is_absent_and_what_is_no_file_has_no_digest() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("build/sub")).unwrap();
        std::fs::write(directory.path().join("build/file"), "").unwrap();
        let view = view(directory.path());
        assert!(view.absent(Path::new("/build/none")) && view.absent(Path::new("/build/file/below")));
        assert!(!view.absent(Path::new("/build/sub")) && view.digest(Path::new("/build/sub")).is_none());
        let before = view.listing(Path::new("/build"));
        std::fs::write(directory.path().join("build/new"), "").unwrap();
        assert!(before.is_some() && before != view.listing(Path::new("/build")));
    }
}
