//! Reads output trees from disk without following links.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_proto::digest::Digest;
use kiln_trees::shape;
use kiln_trees::tree::{Entry, Tree, unusual_mode};

use super::Error;
use super::room::Room;

/// A file that was found, not yet hashed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// Its size when it was listed.
    pub(super) bytes: u64,
    pub(super) executable: bool,
    /// Its permission bits, if they are unusual.
    pub(super) mode: Option<u32>,
    /// The output that it belongs to.
    pub(super) output: String,
}

impl Found {
    pub(super) fn new(path: PathBuf, output: &str, data: &fs::Metadata) -> Self {
        let executable = data.mode() & 0o100 != 0;
        let mode = unusual_mode(data.mode(), executable);
        Self { path, bytes: data.len(), executable, mode, output: output.to_owned() }
    }
}

/// What was found at an output's path.
#[derive(Debug)]
pub(super) enum Output {
    File(Found),
    Link(String),
    Directory(Listing),
}

impl Output {
    /// Its files, in the order in which they were listed.
    pub(super) fn files(&self) -> impl Iterator<Item = &Found> {
        let (one, listed) = match self {
            Self::File(found) => (Some(found), &[][..]),
            Self::Directory(listing) => (None, &listing.files[..]),
            Self::Link(_) => (None, &[][..]),
        };
        one.into_iter().chain(listed.iter().map(|(_, found)| found))
    }
}

/// A directory and everything below it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<(String, Found)>,
    pub(super) links: Vec<(String, String)>,
    /// With their permission bits, if they are unusual.
    pub(super) directories: Vec<(String, Option<u32>)>,
    /// The directory's own permission bits, if they are unusual.
    pub(super) mode: Option<u32>,
}

pub(super) fn join(base: &str, path: &str) -> String {
    let parts = base.split('/').chain(path.split('/')).filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}

/// Files that the command made unreadable are its own fault; any other failure to read is the worker's.
pub(super) fn failed<'a>(path: &'a Path, output: &'a str) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Error::Precondition(format!(
                "cannot read `{name}` of output `{output}`: the command removed the permission; make it leave outputs \
                 readable for their owner (`chmod -R u+rwX`)"
            ))
        }
        _ => Error::Farm(format!("cannot read `{}`: {error}", path.display())),
    }
}

/// Looks at a path relative to the root; `None` if nothing is there.
pub(super) fn look(root: &Path, path: &str, room: &mut Room) -> Result<Option<Output>, Error> {
    let mut at = root.to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in parts.iter().take(parts.len().saturating_sub(1)) {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(data) if data.is_dir() => {}
            Ok(data) if data.is_symlink() => {
                let words =
                    format!("output `{path}` is below the symbolic link `{part}`; use its real path in the outputs");
                return Err(Error::Precondition(words));
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(failed(&at, path)(error)),
            _ => return Ok(None),
        }
    }
    at.extend(parts.last());
    let data = match fs::symlink_metadata(&at) {
        Ok(data) => data,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&at, path)(error)),
    };
    Ok(Some(if data.is_symlink() {
        Output::Link(target(&at, path)?)
    } else if data.is_dir() {
        Output::Directory(Listing { mode: unusual_mode(data.mode(), true), ..list(&at, path, room)? })
    } else if data.is_file() {
        room.take_bytes(path, &data)?;
        Output::File(Found::new(at, path, &data))
    } else {
        return Err(special(path));
    }))
}

fn special(path: &str) -> Error {
    Error::Precondition(format!(
        "output `{path}` is a socket, a pipe or a device; expected a file, a directory or a symbolic link"
    ))
}

fn target(at: &Path, path: &str) -> Result<String, Error> {
    let target = fs::read_link(at).map_err(failed(at, path))?;
    let not_text = || Error::Precondition(format!("the target of symbolic link `{path}` is not valid UTF-8"));
    target.into_os_string().into_string().map_err(|_| not_text())
}

/// Refuses paths that are too deep, before the file system does.
fn check_depth(path: &str, output: &str) -> Result<(), Error> {
    let depth = path.split('/').count();
    if depth > shape::MAX_DEPTH {
        let words = format!("output `{output}` is deeper than {} directories; use a flatter layout", shape::MAX_DEPTH);
        return Err(Error::Precondition(words));
    }
    if output.len() + 1 + path.len() > shape::MAX_PATH_BYTES {
        let words = format!(
            "output `{output}` contains a path of more than {} bytes; use a flatter layout",
            shape::MAX_PATH_BYTES
        );
        return Err(Error::Precondition(words));
    }
    Ok(())
}

/// Lists everything below `top`, directories before their contents. Not recursive: outputs may be deeper than a
/// thread's stack allows.
fn list(top: &Path, output: &str, room: &mut Room) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let mut waiting = vec![(top.to_owned(), String::new())];
    while let Some((at, within)) = waiting.pop() {
        for entry in fs::read_dir(&at).map_err(failed(&at, output))? {
            let entry = entry.map_err(failed(&at, output))?;
            room.take(output)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let words = format!("the name `{}` in output `{output}` is not valid UTF-8", name.to_string_lossy());
                return Err(Error::Precondition(words));
            };
            let path = join(&within, name);
            check_depth(&path, output)?;
            let data = entry.metadata().map_err(failed(&at, output))?;
            if data.is_symlink() {
                listing.links.push((path.clone(), target(&entry.path(), &path)?));
            } else if data.is_dir() {
                listing.directories.push((path.clone(), unusual_mode(data.mode(), true)));
                waiting.push((entry.path(), path));
            } else if data.is_file() {
                room.take_bytes(output, &data)?;
                listing.files.push((path, Found::new(entry.path(), output, &data)));
            } else {
                return Err(special(&format!("{output}/{path}")));
            }
        }
    }
    // The order of directory entries is arbitrary; uploading in sorted order reads the disk in order.
    listing.files.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(listing)
}

/// The tree of a listing with its files' digests, and with unusual permission bits if `with_modes`.
pub(super) fn tree(listing: &Listing, digests: impl Iterator<Item = Digest>, with_modes: bool) -> Result<Tree, Error> {
    let asked = |mode: Option<u32>| mode.filter(|_| with_modes);
    let mut tree = Tree { mode: asked(listing.mode), ..Tree::default() };
    let failed = |error: kiln_trees::tree::Error| Error::Farm(error.to_string());
    for (directory, mode) in &listing.directories {
        tree.insert(directory, Entry::Directory(Tree { mode: asked(*mode), ..Tree::default() })).map_err(failed)?;
    }
    for ((path, found), digest) in listing.files.iter().zip(digests) {
        let entry = Entry::File { digest, executable: found.executable, mode: asked(found.mode) };
        tree.insert(path, entry).map_err(failed)?;
    }
    for (path, target) in &listing.links {
        tree.insert(path, Entry::Symlink { target: target.clone() }).map_err(failed)?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::super::room::MAX_BYTES;
    use super::*;

    fn room_for(entries: u64) -> Room {
        Room { entries, bytes: MAX_BYTES }
    }

    fn words(root: &Path, path: &str, room: u64) -> String {
        match look(root, path, &mut room_for(room)) {
            Err(Error::Precondition(words)) => words,
            other => panic!("expected a failed precondition, found {other:?}"),
        }
    }

    #[test]
    fn entries_of_all_outputs_together_are_bounded_and_the_output_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "d/e"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let mut room = room_for(3);
        assert!(look(dir.path(), "a", &mut room).is_ok() && look(dir.path(), "d", &mut room).is_ok());
        let refused = look(dir.path(), "d", &mut room);
        assert!(matches!(refused, Err(Error::Precondition(words)) if words.contains("output `d`")));
        assert!(words(dir.path(), "a", 1).contains("more than 500000 files and directories"));
    }

    #[test]
    fn no_link_is_followed_out_of_the_tree_and_what_is_no_file_is_refused() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(outside.path().join("keys")).unwrap();
        fs::write(outside.path().join("keys/secret"), "secret").unwrap();
        let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        link(&outside.path().join("keys"), "directory");
        link(&outside.path().join("keys/secret"), "file");
        link(Path::new("../../../../etc"), "up");
        fs::create_dir(dir.path().join("out")).unwrap();
        link(&outside.path().join("keys"), "out/inside");
        for name in ["directory", "file", "up"] {
            assert!(matches!(look(dir.path(), name, &mut room_for(9)), Ok(Some(Output::Link(_)))), "{name}");
        }
        let Ok(Some(Output::Directory(listing))) = look(dir.path(), "out", &mut room_for(9)) else {
            panic!("a directory")
        };
        assert_eq!((listing.files.len(), listing.directories.len(), listing.links.len()), (0, 0, 1));
        assert!(words(dir.path(), "directory/secret", 9).contains("below the symbolic link `directory`"));
        nix::unistd::mkfifo(&dir.path().join("out/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        assert!(words(dir.path(), "out", 9).contains("a socket, a pipe or a device"));
        assert!(words(dir.path(), "socket", 9).contains("a socket, a pipe or a device"));
    }

    #[test]
    fn an_output_that_is_too_deep_or_has_too_long_a_path_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("deep").join("d/".repeat(shape::MAX_DEPTH))).unwrap();
        assert!(matches!(look(dir.path(), "deep", &mut room_for(shape::MAX_ENTRIES)), Ok(Some(Output::Directory(_)))));
        fs::create_dir_all(dir.path().join("deep").join("d/".repeat(shape::MAX_DEPTH + 1))).unwrap();
        assert!(words(dir.path(), "deep", 1_000).contains("output `deep` is deeper than 512 directories"));
        fs::create_dir_all(dir.path().join("long").join(format!("{}/", "n".repeat(200)).repeat(16))).unwrap();
        assert!(words(dir.path(), "long", 1_000).contains("output `long` contains a path of more than 3072 bytes"));
    }

    #[test]
    fn a_file_of_nothing_but_holes_counts_whole_and_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::File::create(dir.path().join("out/image")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        fs::File::create(dir.path().join("small")).unwrap().set_len(1 << 20).unwrap();
        let refused = words(dir.path(), "out", 9);
        assert!(
            refused.contains("output `out`") && refused.contains("64 GiB") && refused.contains("has holes"),
            "{refused}"
        );
        assert!(matches!(look(dir.path(), "small", &mut room_for(9)), Ok(Some(Output::File(_)))));
    }

    #[test]
    fn what_the_command_closed_to_itself_is_its_own_fault() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &str, mode: u32| {
            fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(dir.path().join("out/closed")).unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        mode("", 0o755);
        mode("out/closed", 0);
        mode("file", 0);
        let root = dir.path().to_owned();
        // As a worker that is not root: the kernel takes this thread's capabilities over files away with its user.
        let looked = std::thread::spawn(move || {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(4321));
            let directory = words(&root, "out", 9);
            let Ok(Some(Output::File(found))) = look(&root, "file", &mut room_for(9)) else { panic!("a file") };
            let file =
                super::super::hash::hash(kiln_proto::digest::DigestFunction::Sha256, &[&found], 1, &Default::default());
            (directory, file)
        });
        let (directory, file) = looked.join().unwrap();
        mode("out/closed", 0o755);
        assert!(
            directory.contains("cannot read `closed` of output `out`") && directory.contains("chmod"),
            "{directory}"
        );
        assert!(matches!(file, Err(Error::Precondition(words)) if words.contains("output `file`")));
    }
}
