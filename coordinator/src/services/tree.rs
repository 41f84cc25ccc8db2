//! A tree's directories in pages, level by level.
//!
//! The order depends on the tree alone, so a page token is just how many directories came before, and it holds after a restart.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_proto::shape;
use tonic::Status;

use kiln_store::BlobStore;

/// Directories in a page where the client does not say.
const PAGE: usize = 1_000;
/// Bytes after which a page ends, below gRPC's usual message limit of 4 MiB.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Directories fetched at once.
const CONCURRENCY: usize = 16;
/// Bytes of directories fetched at once, where they are more than one.
const FETCH_BYTES: u64 = 16 << 20;

/// Which directories a client asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    size: usize,
    skip: usize,
}

impl Page {
    pub(super) fn from_wire(size: i32, token: &str) -> Result<Self, Status> {
        let size = match usize::try_from(size) {
            Ok(0) => PAGE,
            Ok(size) => size,
            Err(_) => return Err(Status::invalid_argument(format!("page size {size} is negative"))),
        };
        let skip = if token.is_empty() { Ok(0) } else { token.parse() };
        let skip = skip.map_err(|_| {
            let token: String = token.chars().take(80).collect();
            Status::invalid_argument(format!("unknown page token `{token}`; start without one"))
        })?;
        Ok(Self { size, skip })
    }
}

/// Walks a tree: what is found but not sent yet, and what is still to be fetched.
struct Walk {
    blobs: Arc<dyn BlobStore>,
    queue: VecDeque<Digest>,
    ready: VecDeque<(reapi::Directory, usize)>,
    seen: HashSet<Digest>,
    sent: usize,
}

impl Walk {
    /// Queues the directories of `directory` that were not seen.
    fn enter(&mut self, root: &Digest, directory: &reapi::Directory) -> Result<(), Status> {
        for below in &directory.directories {
            match Digest::required(root.function, below.digest.as_ref()) {
                Ok(digest) if self.seen.insert(digest) => self.queue.push_back(digest),
                Ok(_) => {}
                Err(error) => tracing::debug!(name = below.name, %error, "a directory names no digest"),
            }
        }
        if self.seen.len() as u64 > shape::MAX_ENTRIES {
            let text = format!("tree `{root}` names more than {} directories; ask for parts of it", shape::MAX_ENTRIES);
            return Err(Status::invalid_argument(text));
        }
        Ok(())
    }

    /// The next directory; one that is missing, or is none, is left out.
    async fn next(&mut self, root: &Digest) -> Result<Option<(reapi::Directory, usize)>, Status> {
        while self.ready.is_empty() && !self.queue.is_empty() {
            let mut bytes = 0;
            let fits = |digest: &&Digest| {
                bytes += digest.size;
                bytes <= FETCH_BYTES
            };
            let count = self.queue.iter().take(CONCURRENCY * 4).take_while(fits).count().max(1);
            let batch: Vec<Digest> = self.queue.drain(..count).collect();
            let blobs = &self.blobs;
            let fetched: Vec<_> = stream::iter(batch)
                .map(|digest| async move { fetch(&**blobs, &digest).await })
                .buffered(CONCURRENCY)
                .try_collect()
                .await?;
            for (directory, bytes) in fetched.into_iter().flatten() {
                self.enter(root, &directory)?;
                self.ready.push_back((directory, bytes));
            }
        }
        Ok(self.ready.pop_front())
    }

    /// The next page; none at the end.
    async fn page(&mut self, root: &Digest, size: usize) -> Result<Option<reapi::GetTreeResponse>, Status> {
        let mut response = reapi::GetTreeResponse::default();
        let mut page_bytes = 0;
        while response.directories.len() < size && page_bytes < PAGE_BYTES {
            let Some((directory, bytes)) = self.next(root).await? else { break };
            response.directories.push(directory);
            page_bytes += bytes;
            self.sent += 1;
        }
        if response.directories.is_empty() {
            return Ok(None);
        }
        if !self.ready.is_empty() || !self.queue.is_empty() {
            response.next_page_token = self.sent.to_string();
        }
        Ok(Some(response))
    }
}

/// A directory with its size in bytes; none where it is absent or no directory.
async fn fetch(blobs: &dyn BlobStore, digest: &Digest) -> Result<Option<(reapi::Directory, usize)>, Status> {
    shape::check_size(digest).map_err(|error| Status::invalid_argument(error.to_string()))?;
    match blobs.get(digest).await {
        Ok(data) => Ok(shape::decode(digest, &data).ok().map(|directory| (directory, data.len()))),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The tree's pages from where `page` says, to the end. An absent root is `NOT_FOUND`.
pub(super) async fn pages(
    blobs: Arc<dyn BlobStore>,
    root: Digest,
    page: Page,
) -> Result<BoxStream<'static, Result<reapi::GetTreeResponse, Status>>, Status> {
    let refused = |error: shape::Error| Status::invalid_argument(error.to_string());
    shape::check_size(&root).map_err(refused)?;
    let data = blobs.get(&root).await?;
    let directory = shape::decode(&root, &data).map_err(refused)?;
    let (queue, ready) = (VecDeque::new(), VecDeque::new());
    let mut walk = Walk { blobs, queue, ready, seen: HashSet::from([root]), sent: 0 };
    walk.enter(&root, &directory)?;
    walk.ready.push_back((directory, data.len()));
    while walk.sent < page.skip && walk.next(&root).await?.is_some() {
        walk.sent += 1;
    }
    Ok(stream::try_unfold(walk, move |mut walk| async move {
        let response = walk.page(&root, page.size).await?;
        Ok(response.map(|response| (response, walk)))
    })
    .boxed())
}
