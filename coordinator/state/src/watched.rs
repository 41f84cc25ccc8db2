//! Files that are replaced while the coordinator runs: looked at now and then, and read anew when they changed.
//!
//! Invariant: what they say in the end is what is known in the end. They are looked at before they are first read, and what could not be
//! read, as in the middle of a change, is read again at the next look.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);

/// Looks at once, for whoever cannot wait for the next look. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Look(mpsc::Sender<oneshot::Sender<()>>);

impl Look {
    /// Returns once the files were looked at, and what changed in them is known.
    pub async fn now(&self) {
        let (done, looked) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            let _ = looked.await;
        }
    }
}

type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

/// Files, and how they were when they were last read.
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
    /// To be called before the files are read for the first time.
    pub fn begin(paths: Vec<PathBuf>) -> Self {
        let read = stamp(&paths);
        Self { paths, read, looks: mpsc::channel(64) }
    }

    /// By which the files are looked at out of turn.
    pub fn look(&self) -> Look {
        Look(self.looks.0.clone())
    }

    /// Calls `changed` whenever one of the files is another than before, until it says `false`: nobody wants to know any more. Where it
    /// fails, that is told once, and it is called again at the next look.
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
                    // Whoever asked by now is answered by the same look.
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
                    tracing::error!(%error, files = ?self.paths, "the new version cannot be used; the previous one stays in effect");
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
        // Between the first read and the first look.
        std::fs::write(&path, "another").unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let following = watched.follow(move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err("not whole yet"),
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
