//! A tree's directories in pages, level by level.
//!
//! The order depends on the tree alone, so a page token is just how many directories came before, and it holds after a restart.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_store::BlobStore;
use kiln_store::trees::Stored;
use kiln_trees::shape;
use kiln_trees::walk::{self, Decoded, Directory, Found, Malformed, Walk};
use tonic::Status;

/// Directories in a page where the client does not say.
const PAGE: usize = 1_000;
/// Bytes after which a page ends, below gRPC's usual message limit of 4 MiB.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

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

/// A directory as it is sent, whatever else it holds.
struct Sent {
    message: reapi::Directory,
    bytes: usize,
    below: Vec<Digest>,
}

impl Directory for Sent {
    fn decode(digest: &Digest, data: &Bytes) -> Result<Self, Malformed> {
        let message = shape::decode(digest, data)?;
        let below = message.directories.iter();
        let below = below.filter_map(|below| Digest::required(digest.function, below.digest.as_ref()).ok()).collect();
        Ok(Self { message, bytes: data.len(), below })
    }

    fn below(&self) -> Vec<Digest> {
        self.below.clone()
    }

    /// Directories alone: a page names its files, and does not have them.
    fn entries(&self) -> u64 {
        self.below.len() as u64
    }
}

type Directories = Decoded<Stored<Arc<dyn BlobStore>>, Sent>;

/// The pages of a tree that were not sent yet.
struct Pages {
    walk: Walk<Directories>,
    sent: usize,
}

impl Pages {
    /// The next directory; one that is absent or malformed is left out.
    async fn next(&mut self, root: &Digest) -> Result<Option<Sent>, Status> {
        loop {
            match self.walk.next().await {
                Ok(Some((_, Found::Directory(directory)))) => return Ok(Some(directory)),
                Ok(Some((digest, Found::Absent))) => tracing::debug!(%digest, "a directory of a tree is absent"),
                Ok(Some((_, Found::Malformed(error)))) => tracing::debug!(%error, "a directory of a tree is malformed"),
                Ok(None) => return Ok(None),
                Err(walk::Error::Entries) => {
                    let most = shape::MAX_ENTRIES;
                    let text = format!("tree `{root}` names more than {most} directories; ask for parts of it");
                    return Err(Status::invalid_argument(text));
                }
                Err(walk::Error::Source(error)) => return Err(error.into()),
            }
        }
    }

    /// The next page; none at the end.
    async fn page(&mut self, root: &Digest, size: usize) -> Result<Option<reapi::GetTreeResponse>, Status> {
        let mut response = reapi::GetTreeResponse::default();
        let mut page_bytes = 0;
        while response.directories.len() < size && page_bytes < PAGE_BYTES {
            let Some(directory) = self.next(root).await? else { break };
            response.directories.push(directory.message);
            page_bytes += directory.bytes;
            self.sent += 1;
        }
        if response.directories.is_empty() {
            return Ok(None);
        }
        if !self.walk.is_done() {
            response.next_page_token = self.sent.to_string();
        }
        Ok(Some(response))
    }
}

/// The tree's pages from where `page` says, to the end. An absent root is `NOT_FOUND`.
pub(super) async fn pages(
    blobs: Arc<dyn BlobStore>,
    root: Digest,
    page: Page,
) -> Result<BoxStream<'static, Result<reapi::GetTreeResponse, Status>>, Status> {
    shape::check_size(&root).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let data = blobs.get(&root).await?;
    shape::decode(&root, &data).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut pages = Pages { walk: Walk::new(Directories::new(Stored(blobs)), [root]), sent: 0 };
    while pages.sent < page.skip && pages.next(&root).await?.is_some() {
        pages.sent += 1;
    }
    Ok(stream::try_unfold(pages, move |mut pages| async move {
        let response = pages.page(&root, page.size).await?;
        Ok(response.map(|response| (response, pages)))
    })
    .boxed())
}
