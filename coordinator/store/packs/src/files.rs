//! The files of packs; the last used ones stay open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// Packs whose files stay open.
const OPEN: usize = 32;

/// The two files of a pack.
#[derive(Debug)]
pub(super) struct Both {
    pub(super) data: File,
    pub(super) list: File,
}

/// The packs' files in a directory.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    open: Mutex<HashMap<u32, Arc<Both>>>,
}

/// The path of the blobs' bytes.
pub(super) fn data_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.data"))
}

/// The path of the records.
pub(super) fn list_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.list"))
}

impl Files {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, open: Mutex::default() }
    }

    /// Creates the files of a new pack: a list is never without data.
    pub(super) fn create(&self, number: u32) -> io::Result<Arc<Both>> {
        let make = |path: PathBuf| File::options().read(true).write(true).create(true).truncate(true).open(path);
        let data = make(data_path(&self.dir, number))?;
        Ok(self.keep(number, Both { data, list: make(list_path(&self.dir, number))? }))
    }

    /// The files of a pack, if they are open.
    pub(super) fn is_open(&self, number: u32) -> Option<Arc<Both>> {
        self.open.lock().get(&number).cloned()
    }

    pub(super) fn open(&self, number: u32) -> io::Result<Arc<Both>> {
        if let Some(files) = self.open.lock().get(&number) {
            return Ok(files.clone());
        }
        let open = |path: PathBuf| File::options().read(true).write(true).open(path);
        let files = Both { data: open(data_path(&self.dir, number))?, list: open(list_path(&self.dir, number))? };
        Ok(self.keep(number, files))
    }

    fn keep(&self, number: u32, files: Both) -> Arc<Both> {
        let mut open = self.open.lock();
        if open.len() >= OPEN {
            open.clear();
        }
        open.entry(number).or_insert_with(|| Arc::new(files)).clone()
    }

    pub(super) fn delete(&self, number: u32) {
        self.open.lock().remove(&number);
        for path in [list_path(&self.dir, number), data_path(&self.dir, number)] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove an empty pack; the next start will");
                }
                _ => {}
            }
        }
    }
}
