//! `kiln gocache`: the helper that `go` starts with `GOCACHEPROG`, for a build cache on this machine's disk and the farm.
//!
//! Source: `cmd/go/internal/cacheprog` (Go 1.24), JSON over standard input and output.
//!
//! Invariant: an entry is answered with a file that is whole and stays until `go` ends. A slow or absent farm costs at
//! most the wait of one look-up, several times.

mod disk;
mod protocol;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kiln_proto::channel::Access;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::farm::Remote;
use disk::{Disk, Found};
use protocol::{Answer, Command, Reader};

/// Look-ups of the farm at once.
const LOOKS: usize = 32;
/// Uploads to the farm at once.
const UPLOADS: usize = 8;
/// How long entries that nobody used stay on this machine's disk.
const LIFE: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// `kiln gocache`.
#[derive(Debug, Clone, clap::Args)]
pub struct Gocache {
    /// The farm's cache for Go, as `kiln cache env go` prints it; without it, entries are kept on this machine only.
    #[arg(long, env = "KILN_GOCACHE_URL", value_name = "URL")]
    pub url: Option<String>,
    /// Directory for entries on this machine; default: `kiln/gocache` in the user's cache directory.
    #[arg(long, env = "KILN_GOCACHE_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long `go` may wait for the farm to answer for one entry; after that it builds it.
    #[arg(long, default_value = "1s", value_parser = kiln_units::duration, value_name = "TIME")]
    pub wait: Duration,
    /// How long the end of a `go` command may wait until what it built has been sent to the farm.
    #[arg(long, default_value = "30s", value_parser = kiln_units::duration, value_name = "TIME")]
    pub flush: Duration,
}

#[derive(Debug, Clone)]
struct Cache {
    disk: Arc<Disk>,
    remote: Option<Remote>,
    wait: Duration,
    looks: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// Entries on their way to the farm.
    sending: TaskTracker,
}

/// Serves `go` on standard input and output until it closes the cache.
///
/// # Errors
/// If the directory or the credentials cannot be used, or `go` breaks off.
pub async fn run(args: Gocache, directory: PathBuf, access: &Access) -> Result<(), Error> {
    let remote = args.url.as_deref().map(|url| Remote::open(url, access)).transpose()?;
    serve(&args, directory, remote, tokio::io::stdin(), tokio::io::stdout()).await
}

async fn serve(
    args: &Gocache,
    directory: PathBuf,
    remote: Option<Remote>,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<(), Error> {
    let cache = Cache {
        disk: Arc::new(Disk::open(args.dir.clone().unwrap_or(directory))?),
        remote,
        wait: args.wait,
        looks: Arc::new(Semaphore::new(LOOKS)),
        uploads: Arc::new(Semaphore::new(UPLOADS)),
        sending: TaskTracker::new(),
    };
    let (answers, waiting) = mpsc::unbounded_channel();
    let writing = tokio::spawn(write(waiting, output));
    let mut reader = Reader::new(input);
    let _ = answers.send(Answer::known());
    let asked = TaskTracker::new();
    while let Some(request) = reader.next().await? {
        match request.command {
            Command::Get => {
                let (cache, answers) = (cache.clone(), answers.clone());
                asked.spawn(async move {
                    let found = cache.get(&request.action).await;
                    let _ =
                        answers.send(found.map_or_else(|| Answer::miss(request.id), |found| found.answer(request.id)));
                });
            }
            Command::Put => {
                let output = request.output.clone();
                let answer = match cache.disk.put(&request.action, &output, request.size, &mut reader).await? {
                    Ok(found) => {
                        cache.send(request.action, &found);
                        Answer::stored(request.id, &found.path)
                    }
                    Err(reason) => Answer::failed(request.id, reason),
                };
                let _ = answers.send(answer);
            }
            Command::Close => {
                asked.close();
                asked.wait().await;
                cache.sending.close();
                let _ = tokio::time::timeout(args.flush, cache.sending.wait()).await;
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
    cache.disk.trim(LIFE);
    Ok(())
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
    /// An entry from the disk, or from the farm if it answers in time.
    async fn get(&self, action: &[u8]) -> Option<Found> {
        let key = hex::encode(action);
        if let Some(found) = self.disk.get(&key) {
            return Some(found);
        }
        let remote = self.remote.clone().filter(|remote| !remote.is_down())?;
        let cache = self.clone();
        // What does not arrive in time is on the disk for the next time.
        let coming = tokio::spawn(async move {
            let _turn = cache.looks.acquire().await.ok()?;
            cache.fetch(&remote, &key).await
        });
        match tokio::time::timeout(self.wait, coming).await {
            Ok(found) => found.ok().flatten(),
            Err(_) => {
                if let Some(remote) = &self.remote {
                    remote.failed("it did not answer in time");
                }
                None
            }
        }
    }

    async fn fetch(&self, remote: &Remote, key: &str) -> Option<Found> {
        let response = remote.get(key).await?;
        let promised = response.headers().get(reqwest::header::ETAG)?.to_str().ok()?.trim_matches('"').to_owned();
        let size = response.content_length()?;
        let mut file = self.disk.begin().ok()?;
        let (mut hasher, mut received) = (Sha256::new(), 0_u64);
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.ok()?;
            received += piece.len() as u64;
            hasher.update(&piece);
            std::io::Write::write_all(&mut file, &piece).ok()?;
        }
        let output = hex::encode(hasher.finalize());
        if output != promised || received != size {
            tracing::debug!(key, "an entry is not what it should be");
            return None;
        }
        self.disk.keep(key, &output, size, file).ok()
    }

    /// Sends an entry to the farm, in the background.
    fn send(&self, action: Vec<u8>, found: &Found) {
        let Some(remote) = self.remote.clone() else { return };
        let (uploads, path, size) = (self.uploads.clone(), found.path.clone(), found.size);
        self.sending.spawn(async move {
            let Ok(_turn) = uploads.acquire().await else { return };
            if !remote.takes() {
                return;
            }
            if let Err(error) = remote.put(&hex::encode(action), &path, size).await {
                tracing::debug!(%error, "an entry was not sent");
            }
        });
    }
}

#[cfg(test)]
mod tests;
