//! Several directories of a stack become one, as overlayfs shows them. Files are links to the ones that are there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use super::attributes;
use crate::inputs::{Error, disk};

/// Merges directories, topmost first, into a new one. `marks`: what the names of overlayfs's own attributes begin with.
pub(super) fn merge(layers: &[PathBuf], to: &Path, marks: &str) -> Result<(), Error> {
    let mut waiting = vec![(layers.to_vec(), to.to_owned())];
    let mut made = Vec::new();
    while let Some((from, to)) = waiting.pop() {
        DirBuilder::new().mode(0o700).create(&to).map_err(disk(&to))?;
        for (name, found) in entries(&from, marks).map_err(disk(&to))? {
            let below = to.join(name);
            match found {
                Found::Directories(from) => waiting.push((from, below)),
                Found::File(path) => fs::hard_link(&path, &below).map_err(disk(&path))?,
            }
        }
        made.extend(from.first().map(|first| (first.clone(), to)));
    }
    made.iter().rev().try_for_each(|(like, path)| resemble(like, path).map_err(disk(path)))
}

enum Found {
    /// Topmost first.
    Directories(Vec<PathBuf>),
    File(PathBuf),
}

fn entries(from: &[PathBuf], marks: &str) -> io::Result<BTreeMap<OsString, Found>> {
    // None: what is below a name is hidden.
    let mut names: BTreeMap<OsString, (Option<Found>, bool)> = BTreeMap::new();
    for directory in from {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let data = entry.metadata()?;
            let is_whiteout = data.file_type().is_char_device() && data.rdev() == 0;
            let (found, is_closed) = names.entry(entry.file_name()).or_insert((None, false));
            match found {
                _ if *is_closed => continue,
                Some(Found::Directories(directories)) if data.is_dir() => directories.push(entry.path()),
                Some(_) => *is_closed = true,
                None if is_whiteout => *is_closed = true,
                None if data.is_dir() => *found = Some(Found::Directories(vec![entry.path()])),
                None => {
                    *found = Some(Found::File(entry.path()));
                    *is_closed = true;
                }
            }
            if data.is_dir() && attributes::mark(&entry.path(), marks, "opaque")?.as_deref() == Some(b"y") {
                *is_closed = true;
            }
        }
        if attributes::mark(directory, marks, "opaque")?.as_deref() == Some(b"y") {
            break;
        }
    }
    Ok(names.into_iter().filter_map(|(name, (found, _))| Some((name, found?))).collect())
}

fn resemble(like: &Path, path: &Path) -> io::Result<()> {
    let data = fs::symlink_metadata(like)?;
    lchown(path, Some(data.uid()), Some(data.gid()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(data.mode() & 0o7777))?;
    attributes::age(path, attributes::time(&data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(at: &Path, path: &str, text: &str) {
        let path = at.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_topmost_wins_and_what_it_hides_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "middle", "bottom"].map(|name| dir.path().join(name)).into();
        for (layer, path, text) in [
            (2, "a/kept", "bottom"),
            (2, "a/over", "bottom"),
            (2, "was/file", "bottom"),
            (2, "opaque/old", "bottom"),
            (1, "a/over", "middle"),
            (1, "was", "a file now"),
            (1, "opaque/new", "middle"),
            (0, "a/new", "top"),
            (0, "opaque/newest", "top"),
        ] {
            put(&layers[layer], path, text);
        }
        let opaque = layers[1].join("opaque");
        rustix::fs::lsetxattr(&opaque, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
        let to = dir.path().join("merged");
        merge(&layers, &to, "user.overlay.").unwrap();
        let read = |path: &str| fs::read_to_string(to.join(path)).ok();
        assert_eq!(read("a/kept").as_deref(), Some("bottom"));
        assert_eq!(read("a/over").as_deref(), Some("middle"));
        assert_eq!(read("a/new").as_deref(), Some("top"));
        assert_eq!(read("was").as_deref(), Some("a file now"));
        assert_eq!(
            (read("opaque/old"), read("opaque/new").is_some(), read("opaque/newest").is_some()),
            (None, true, true)
        );
    }
}
