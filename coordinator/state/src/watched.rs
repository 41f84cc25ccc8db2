//! Files that are replaced while the coordinator runs: checked at intervals and reloaded when they change.
//!
//! Invariant: the final content of the files is always picked up. They are checked before they are first read, and a
//! file that could not be read, as in the middle of a change, is read again at the next check.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// How often the files are checked.
const EVERY: Duration = Duration::from_millis(500);

/// Triggers a check for whoever cannot wait for the next one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Look(mpsc::Sender<oneshot::Sender<()>>);

impl Look {
    /// Returns once the files have been checked and any changes are in effect.
    pub async fn now(&self) {
        let (done, looked) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            let _ = looked.await;
        }
    }
}

type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

/// Files, and their state when they were last read.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    read: Stamp,
    looks: (mpsc::Sender<oneshot::Sender<()>>, mpsc::Receiver<oneshot::Sender<()>>),
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    let of = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    };
    paths.iter().map(of).collect()
}

impl Watched {
    /// Must be called before the files are read for the first time.
    pub fn begin(paths: Vec<PathBuf>) -> Self {
        let read = stamp(&paths);
        Self { paths, read, looks: mpsc::channel(64) }
    }

    /// The handle that triggers a check.
    pub fn look(&self) -> Look {
        Look(self.looks.0.clone())
    }

    /// Calls `changed` whenever one of the files has changed, until it returns `false`. If it fails, the error is
    /// logged once, and it is called again at the next check.
    pub async fn follow<E: Display>(mut self, mut changed: impl FnMut() -> Result<bool, E>) {
        let mut told = None;
        let mut asked: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            for done in asked.drain(..) {
                let _ = done.send(());
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                Some(done) = self.looks.1.recv() => {
                    asked.push(done);
                    // Whoever asked by now is answered by the same check.
                    while let Ok(done) = self.looks.1.try_recv() {
                        asked.push(done);
                    }
                }
            }
            let now = stamp(&self.paths);
            if now == self.read {
                continue;
            }
            match changed() {
                Ok(true) => self.read = now,
                Ok(false) => return,
                Err(error) if told.as_ref() != Some(&now) => {
                    tracing::error!(%error, files = ?self.paths, "the new version is invalid; the previous one stays in effect");
                    told = Some(now);
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_right_after_the_first_read_is_seen_and_what_fails_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let watched = Watched::begin(vec![path.clone()]);
        // Between the first read and the first check.
        std::fs::write(&path, "another").unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let following = watched.follow(move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err("not complete yet"),
            2 => Ok(true),
            _ => Ok(false),
        });
        let following = tokio::spawn(following);
        while calls.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(EVERY).await;
        }
        std::fs::write(&path, "and a third").unwrap();
        following.await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 4, "expected it to be read once for the last change");
    }
}
