//! Passes the store's asynchronous streams to a thread that compresses, through a bounded channel.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures::{StreamExt, TryStreamExt, stream};
use kiln_proto::digest::Digest;
use kiln_trees::tree::{Entry, Tree};
use tokio::sync::mpsc;

use super::super::file_mode;
use kiln_store::BlobStore;

/// Maximum size of a file that is fetched whole, concurrently with others.
const WHOLE_BYTES: u64 = 1 << 20;
/// Maximum number of small files fetched at once.
const AHEAD: usize = 16;
/// Capacity of the channel.
const QUEUE: usize = 16;

/// A piece of a layer's content.
#[derive(Debug)]
pub(super) enum Piece {
    /// An empty directory.
    Directory(String),
    /// A symbolic link: path and target.
    Symlink(String, String),
    /// The start of a file: path, permission bits, size.
    File(String, u32, u64),
    /// Data of the current file.
    Data(Bytes),
    /// Reading failed: the layer cannot be completed.
    Failed(io::Error),
}

/// Creates a channel of pieces.
pub(super) fn channel() -> (mpsc::Sender<Piece>, mpsc::Receiver<Piece>) {
    mpsc::channel(QUEUE)
}

/// Sends a tree's entries in order; stops early if the receiver is dropped.
pub(super) async fn send_tree(
    store: &dyn BlobStore,
    tree: &Tree,
    to: &mpsc::Sender<Piece>,
) -> Result<(), kiln_store::Error> {
    let mut entries = Vec::new();
    walk(tree, String::new(), &mut entries);
    let fetched = entries.into_iter().map(|(path, entry)| async move {
        let whole = match &entry {
            Entry::File { digest, .. } if digest.size <= WHOLE_BYTES => Some(store.get(digest).await?),
            _ => None,
        };
        Ok::<_, kiln_store::Error>((path, entry, whole))
    });
    let fetched: Vec<_> = fetched.collect();
    let mut fetched = stream::iter(fetched).buffered(AHEAD);
    while let Some((path, entry, whole)) = fetched.try_next().await? {
        let began = match &entry {
            Entry::File { digest, executable, mode } => Piece::File(path, file_mode(*executable, *mode), digest.size),
            Entry::Symlink { target } => Piece::Symlink(path, target.clone()),
            Entry::Directory(_) | Entry::Sealed { .. } => Piece::Directory(path),
        };
        if to.send(began).await.is_err() {
            return Ok(());
        }
        match (entry, whole) {
            (_, Some(data)) => {
                let _ = to.send(Piece::Data(data)).await;
            }
            (Entry::File { digest, .. }, None) => send_blob(store, &digest, to).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Sends one blob's bytes.
pub(super) async fn send_blob(
    store: &dyn BlobStore,
    digest: &Digest,
    to: &mpsc::Sender<Piece>,
) -> Result<(), kiln_store::Error> {
    let mut pieces = store.read(digest, 0, None).await?;
    while let Some(piece) = pieces.next().await {
        if to.send(Piece::Data(piece?)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn walk(tree: &Tree, prefix: String, into: &mut Vec<(String, Entry)>) {
    for (name, entry) in &tree.entries {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        match entry {
            Entry::Directory(below) if !below.entries.is_empty() => walk(below, path, into),
            Entry::Directory(_) => into.push((path, Entry::Directory(Tree::default()))),
            other => into.push((path, other.clone())),
        }
    }
}

/// Reads the data that comes next from the channel, until another piece or the end.
pub(super) struct Reader<'a> {
    from: &'a mut mpsc::Receiver<Piece>,
    current: Bytes,
    left: u64,
}

impl<'a> Reader<'a> {
    /// Reads at most `bytes`.
    pub(super) fn new(from: &'a mut mpsc::Receiver<Piece>, bytes: u64) -> Self {
        Self { from, current: Bytes::new(), left: bytes }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            match self.from.blocking_recv() {
                Some(Piece::Data(data)) => {
                    self.left = self.left.saturating_sub(data.len() as u64);
                    self.current = data;
                }
                Some(Piece::Failed(error)) => return Err(error),
                Some(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a file ended before all its bytes arrived",
                    ));
                }
                None => return Ok(0),
            }
        }
        let taken = Read::read(&mut &*self.current, buffer)?;
        self.current.advance(taken);
        Ok(taken)
    }
}
