//! Entries of several projects on one disk, for steps that find those of their own.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::{Disk, Found, Unkept};

/// Most bytes of all entries; the least recently used go first.
const MAX_BYTES: u64 = 8 << 30;
/// How often they are counted.
const COUNTED: Duration = Duration::from_secs(60 * 60);
/// The directory of entries that a step alone has, below its own.
const OWN: &str = "own";
/// Spaces whose unkept actions are remembered.
const MOST_UNKEPT: usize = 64;

/// Spaces of entries below one directory.
#[derive(Debug)]
pub struct Spaces {
    directory: PathBuf,
    counted: Mutex<Option<Instant>>,
    unkept: Mutex<HashMap<String, Arc<Unkept>>>,
}

/// The entries of a space, as one step has them.
#[derive(Debug)]
pub struct Shown {
    /// The space's; before them, those that the step alone may write, if it must not write these.
    pub disks: Vec<Arc<Disk>>,
    /// The space's actions whose entries are not kept; before them the step's own, likewise.
    pub unkept: Vec<Arc<Unkept>>,
    /// The directory on this machine in which the step finds files of entries.
    files: PathBuf,
    /// Where that is for the step.
    to: PathBuf,
}

impl Spaces {
    /// Spaces below this directory, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, counted: Mutex::default(), unkept: Mutex::default() }
    }

    /// Whether files below the directory can have names below another one as well.
    pub fn can_show_in(&self, other: &Path) -> bool {
        let (probe, other) = (self.directory.join("probe"), other.join("probe"));
        let linked = std::fs::create_dir_all(&self.directory)
            .and_then(|()| File::create(&probe).map(drop))
            .and_then(|()| std::fs::hard_link(&probe, &other));
        let _ = (std::fs::remove_file(&other), std::fs::remove_file(&probe));
        linked.is_ok()
    }

    /// The entries of a space. A step with this directory finds their files in the directory `name` of it, which it knows as `to`.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn show(&self, (space, read_only): (&[&str], bool), step: &Path, name: &str, to: &Path) -> io::Result<Shown> {
        let open = |directory: PathBuf| Disk::open(directory).map(Arc::new).map_err(io::Error::other);
        let space = hex::encode(Sha256::digest(space.join("\0")));
        let mut unkept = vec![self.unkept_of(&space)];
        let mut disks = vec![open(self.directory.join(space))?];
        if read_only {
            disks.insert(0, open(step.join(OWN))?);
            unkept.insert(0, Arc::default());
        }
        let files = step.join(name);
        std::fs::create_dir(&files)?;
        Ok(Shown { disks, unkept, files, to: to.join(name) })
    }

    fn unkept_of(&self, space: &str) -> Arc<Unkept> {
        let mut all = self.unkept.lock();
        if all.len() >= MOST_UNKEPT && !all.contains_key(space) {
            all.clear();
        }
        all.entry(space.to_owned()).or_default().clone()
    }

    /// Removes what was not used lately if there is too much. Blocks.
    pub fn make_room(&self) {
        {
            let mut counted = self.counted.lock();
            if counted.is_some_and(|at| at.elapsed() < COUNTED) {
                return;
            }
            *counted = Some(Instant::now());
        }
        self.keep(MAX_BYTES);
    }

    fn keep(&self, most: u64) {
        let below = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten();
        let spaces = below(&self.directory).flat_map(|space| below(&space.path()));
        let mut files: Vec<(SystemTime, u64, PathBuf)> = spaces
            .flat_map(|group| below(&group.path()))
            .filter_map(|file| {
                let data = file.metadata().ok()?;
                Some((data.modified().ok()?, data.len(), file.path()))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in files {
            if bytes <= most {
                break;
            }
            // A step that has the file has it by another name.
            if std::fs::remove_file(path).is_ok() {
                bytes = bytes.saturating_sub(size);
            }
        }
    }
}

impl Shown {
    /// Gives an entry's file a name of the step's own, so that it stays, and returns where the step finds it.
    pub fn shows(&self) -> impl Fn(&Found) -> io::Result<PathBuf> + Send + Sync + 'static {
        let (files, to) = (self.files.clone(), self.to.clone());
        move |found| {
            let name = hex::encode(&found.output);
            match std::fs::hard_link(&found.path, files.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            Ok(to.join(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(disk: &Disk, text: &str) -> Found {
        let mut file = disk.begin().unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let found = disk.keep(&hex::encode(Sha256::digest(text)), text.len() as u64, file).unwrap();
        disk.name(text, &found).unwrap();
        found
    }

    #[test]
    fn who_only_reads_a_space_writes_beside_it_and_what_is_shown_stays() {
        let dir = tempfile::tempdir().unwrap();
        let spaces = Spaces::new(dir.path().join("spaces"));
        let step = |name: &str, read_only| {
            let step = dir.path().join(name);
            std::fs::create_dir(&step).unwrap();
            assert!(spaces.can_show_in(&step));
            spaces.show((&["tenant", "space"], read_only), &step, "go", Path::new("/kiln")).unwrap()
        };
        let (one, reader) = (step("one", false), step("reader", true));
        let found = entry(&one.disks[0], "given");
        assert!(reader.disks[0].get("given").is_none() && reader.disks[1].get("given").is_some());
        entry(&reader.disks[0], "own");
        reader.unkept[0].add(b"index");
        assert!(one.unkept.iter().all(|unkept| !unkept.has(b"index")), "expected nothing of it in the space");
        one.unkept[0].add(b"index");
        assert!(
            reader.unkept[1].has(b"index") && step("two", false).unkept[0].has(b"index"),
            "expected what the space has"
        );
        assert!(one.disks[0].get("own").is_none(), "expected nothing of it in the space");
        let shown = one.shows()(&found).unwrap();
        assert_eq!(shown, Path::new("/kiln/go").join(hex::encode(&found.output)));
        assert_eq!(one.shows()(&found).unwrap(), shown, "again");
        spaces.keep(0);
        assert!(one.disks[0].get("given").is_none(), "expected it to be removed from the space");
        let own = dir.path().join("one/go").join(hex::encode(&found.output));
        assert_eq!(std::fs::read(own).unwrap(), b"given");
    }
}
