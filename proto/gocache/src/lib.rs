//! Go's cache protocol: what `go` asks through `GOCACHEPROG`, answered from a disk and the farm behind it.
//!
//! Source: `cmd/go/internal/cacheprog` (Go 1.24), JSON over standard input and output.
//!
//! Invariant: an entry is answered with a file that is whole and stays until `go` ends. A slow or absent farm costs at
//! most the wait of one look-up, several times.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod content;
mod disk;
mod error;
mod noted;
mod others;
mod protocol;
mod spaces;
mod unkept;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

pub use disk::{Disk, Found};
pub use error::Error;
pub use noted::Noted;
pub use others::{Sources, digest_of, is_read_by_others, may_have_read_by_others, others, read_by_others};
pub use spaces::{Shown, Spaces};
pub use unkept::Unkept;

use protocol::{Answer, Command, Reader};

/// Look-ups of the farm at once.
const LOOKS: usize = 32;
/// Entries that are sent to the farm at once.
const SENDS: usize = 8;

/// A farm that keeps entries.
#[async_trait]
pub trait Farm: std::fmt::Debug + Send + Sync {
    /// Whether it is left alone at the moment.
    fn is_down(&self) -> bool;

    /// It did not answer in time.
    fn is_late(&self);

    /// Writes the body of the first entry that one of these actions has, and returns that action with the SHA-256 that the body must have, in
    /// hexadecimal. `None`: there is no entry.
    async fn get(&self, actions: &[Vec<u8>], body: &mut Body) -> Option<(Vec<u8>, String)>;

    /// Keeps an entry, as far as the farm takes it.
    async fn put(&self, action: &[u8], found: &Found);
}

/// The body of an entry while it arrives.
#[derive(Debug)]
pub struct Body {
    file: tempfile::NamedTempFile,
    hasher: Sha256,
    size: u64,
}

impl Body {
    /// Adds a piece.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.hasher.update(piece);
        self.size = self.size.saturating_add(piece.len() as u64);
        Ok(())
    }
}

/// What outlives a `go` command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Every entry.
    All,
    /// Those that `go` finds by the content of files. Results of tests and indexes of packages, which it finds by their times, are not
    /// kept: where all files have the same time, they would be found for others. What C compilers and assemblers made is kept for commands
    /// beside which the same other files are, which this digest says: `go` does not look at headers in directories of other packages.
    Content([u8; 32]),
}

impl Kept {
    /// Under which actions an entry may be, the likelier first.
    fn places(self, action: &[u8]) -> Vec<Vec<u8>> {
        std::iter::once(action.to_vec()).chain(self.beside(action)).collect()
    }

    /// Under which an entry is that depends on other files.
    fn beside(self, action: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::All => None,
            Self::Content(others) => Some(Sha256::digest([&others[..], action].concat()).to_vec()),
        }
    }

    /// Under which action an entry is kept, if it is.
    fn place(self, action: &[u8], body: &Path) -> Option<Vec<u8>> {
        match (self, content::of(body)) {
            (Self::All, _) | (Self::Content(_), content::Found::Content) => Some(action.to_vec()),
            (Self::Content(_), content::Found::ContentBesideOthers) => self.beside(action),
            (Self::Content(_), content::Found::Times) => None,
        }
    }
}

/// Where an entry's file is for `go`: a path that this process may know by another name.
pub type Show = dyn Fn(&Found) -> io::Result<PathBuf> + Send + Sync;

/// The cache of one `go` command. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    /// Where entries are looked for. New ones are written to the first.
    pub disks: Vec<Arc<Disk>>,
    /// The farm, if there is one.
    pub farm: Option<Arc<dyn Farm>>,
    /// Whether new entries are sent to it.
    pub sends: bool,
    /// How long `go` may wait for the farm's answer for one entry.
    pub wait: Duration,
    /// How long the end of a command waits until new entries have been sent.
    pub flush: Duration,
    /// What outlives the command.
    pub kept: Kept,
    /// Actions that the farm is not asked for. New ones are added to the first.
    pub unkept: Vec<Arc<Unkept>>,
    /// Where it is noted what `go` asked for.
    pub noted: Option<Arc<Noted>>,
    /// Where `go` finds a file; `None`: where this process does.
    pub show: Option<Arc<Show>>,
    /// Entries on their way to the farm.
    pub sending: TaskTracker,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cache").field("disks", &self.disks).field("farm", &self.farm).finish_non_exhaustive()
    }
}

/// What a command was answered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Entries that it asked for and got.
    pub hits: u64,
    /// Of these, the ones that came from the farm.
    pub from_farm: u64,
    /// Entries that it asked for and that were not there.
    pub misses: u64,
    /// New entries.
    pub puts: u64,
}

/// Counts while requests are answered at the same time.
#[derive(Debug, Default)]
struct Counts {
    hits: std::sync::atomic::AtomicU64,
    from_farm: std::sync::atomic::AtomicU64,
    misses: std::sync::atomic::AtomicU64,
}

/// Serves a `go` command until it closes the cache.
///
/// # Errors
/// If `go` breaks off, or says what is not understood.
pub async fn serve(
    cache: Cache,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<Served, Error> {
    use std::sync::atomic::Ordering::Relaxed;
    let limits = (Arc::new(Semaphore::new(LOOKS)), Arc::new(Semaphore::new(SENDS)));
    let (answers, waiting) = mpsc::unbounded_channel();
    let writing = tokio::spawn(write(waiting, output));
    let mut reader = Reader::new(input);
    let _ = answers.send(Answer::known());
    let (asked, counts, mut served) = (TaskTracker::new(), Arc::new(Counts::default()), Served::default());
    while let Some(request) = reader.next().await? {
        match request.command {
            Command::Get => {
                let (cache, answers, looks, counts) =
                    (cache.clone(), answers.clone(), limits.0.clone(), counts.clone());
                asked.spawn(async move {
                    let answer = match cache.get(&request.action, looks, &counts).await {
                        Some((found, path)) => Answer::hit(request.id, &found, &path),
                        None => Answer::miss(request.id),
                    };
                    let _ = answers.send(answer);
                });
            }
            Command::Put => {
                let answer = cache.put(&request, &mut reader, &limits.1).await?;
                served.puts = served.puts.saturating_add(1);
                let _ = answers.send(answer);
            }
            Command::Close => {
                asked.close();
                asked.wait().await;
                if !cache.flush.is_zero() {
                    cache.sending.close();
                    let _ = tokio::time::timeout(cache.flush, cache.sending.wait()).await;
                }
                let _ = answers.send(Answer::closed(request.id));
                break;
            }
            Command::Other(name) => {
                let _ = answers.send(Answer::failed(request.id, format!("unknown command `{name}`")));
            }
        }
    }
    drop(answers);
    asked.close();
    let _ = writing.await;
    served.hits = counts.hits.load(Relaxed);
    served.from_farm = counts.from_farm.load(Relaxed);
    served.misses = counts.misses.load(Relaxed);
    Ok(served)
}

/// Writes answers as they come.
async fn write(mut answers: mpsc::UnboundedReceiver<Answer>, mut output: impl AsyncWrite + Unpin) {
    while let Some(answer) = answers.recv().await {
        let mut line = serde_json::to_vec(&answer).unwrap_or_default();
        line.push(b'\n');
        // If `go` is gone, so is its input.
        if output.write_all(&line).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

impl Cache {
    /// Where `go` finds an entry's file.
    fn shown(&self, found: &Found) -> io::Result<PathBuf> {
        match &self.show {
            Some(show) => show(found),
            None => Ok(found.path.clone()),
        }
    }

    /// An entry from the disk, or from the farm if it answers in time, and where `go` finds its file.
    async fn get(&self, action: &[u8], looks: Arc<Semaphore>, counts: &Counts) -> Option<(Found, PathBuf)> {
        use std::sync::atomic::Ordering::Relaxed;
        let places = self.kept.places(action);
        let here = places.iter().find_map(|place| {
            let key = hex::encode(place);
            self.disks.iter().find_map(|disk| disk.get(&key)).map(|found| (place.clone(), found))
        });
        let is_here = here.is_some();
        let found = match here {
            Some(found) => Some(found),
            None if self.unkept.iter().any(|unkept| unkept.has(action)) => {
                self.note(action, false);
                None
            }
            None => self.asked(places, looks).await,
        };
        let shown = found.and_then(|(place, found)| {
            self.note(&place, true);
            let path = self.shown(&found).inspect_err(|error| tracing::debug!(%error, "cannot show an entry")).ok()?;
            Some((found, path))
        });
        match (&shown, is_here) {
            (Some(_), true) => counts.hits.fetch_add(1, Relaxed),
            (Some(_), false) => {
                counts.from_farm.fetch_add(1, Relaxed);
                counts.hits.fetch_add(1, Relaxed)
            }
            (None, _) => counts.misses.fetch_add(1, Relaxed),
        };
        shown
    }

    fn note(&self, place: &[u8], is_kept: bool) {
        self.noted.iter().for_each(|noted| noted.note(place, is_kept));
    }

    async fn asked(&self, places: Vec<Vec<u8>>, looks: Arc<Semaphore>) -> Option<(Vec<u8>, Found)> {
        let farm = self.farm.clone().filter(|farm| !farm.is_down())?;
        let (disk, other) = (self.disks.first()?.clone(), farm.clone());
        // What does not arrive in time is on the disk for the next time.
        let coming = tokio::spawn(async move {
            let _turn = looks.acquire().await.ok()?;
            fetch(&*other, &disk, &places).await
        });
        match tokio::time::timeout(self.wait, coming).await {
            Ok(found) => found.ok().flatten(),
            Err(_) => {
                farm.is_late();
                None
            }
        }
    }

    async fn put(
        &self,
        request: &protocol::Request,
        reader: &mut Reader<impl AsyncRead + Unpin>,
        sends: &Arc<Semaphore>,
    ) -> Result<Answer, Error> {
        let Some(disk) = self.disks.first() else {
            return Ok(Answer::failed(request.id, "there is no directory for entries".to_owned()));
        };
        let stored = match disk.receive(&request.output, request.size, reader).await? {
            Ok(stored) => stored,
            Err(reason) => return Ok(Answer::failed(request.id, reason)),
        };
        let place = self.kept.place(&request.action, &stored.path);
        if let (None, Some(unkept)) = (&place, self.unkept.first()) {
            unkept.add(&request.action);
        }
        self.note(place.as_ref().unwrap_or(&request.action), place.is_some());
        if let Some(place) = &place
            && let Err(error) = disk.name(&hex::encode(place), &stored)
        {
            return Ok(Answer::failed(request.id, format!("cannot keep an entry: {error}")));
        }
        let answer = match self.shown(&stored) {
            Ok(path) => Answer::stored(request.id, &path),
            Err(error) => Answer::failed(request.id, format!("cannot keep an entry: {error}")),
        };
        if let (Some(place), true) = (place, self.sends) {
            self.send(place, stored, sends.clone());
        }
        Ok(answer)
    }

    /// Sends an entry to the farm, in the background.
    fn send(&self, action: Vec<u8>, found: Found, sends: Arc<Semaphore>) {
        let Some(farm) = self.farm.clone() else { return };
        self.sending.spawn(async move {
            if let Ok(_turn) = sends.acquire().await {
                farm.put(&action, &found).await;
            }
        });
    }
}

async fn fetch(farm: &dyn Farm, disk: &Disk, places: &[Vec<u8>]) -> Option<(Vec<u8>, Found)> {
    let mut body = Body { file: disk.begin().ok()?, hasher: Sha256::new(), size: 0 };
    let (action, promised) = farm.get(places, &mut body).await?;
    let output = hex::encode(body.hasher.finalize());
    if output != promised {
        tracing::debug!(action = hex::encode(&action), "an entry is not what it should be");
        return None;
    }
    let found = disk.keep(&output, body.size, body.file).ok()?;
    disk.name(&hex::encode(&action), &found).ok()?;
    Some((action, found))
}

#[cfg(test)]
mod tests;
