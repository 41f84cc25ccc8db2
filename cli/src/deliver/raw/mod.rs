//! Delivers artifacts as plain files to a bucket, or to a repository that accepts files by HTTP PUT.
//!
//! Below the destination, `NAME/ID/…` contains an artifact's files with its provenance, SBOM, signatures and checksums, and
//! `NAME/ID.json` lists them. Invariant: the list is written last and only once, so an artifact without a list is
//! incomplete, and one with a list is complete.

mod bucket;
mod http;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use kiln_images::registry::Attempts;
use kiln_proto::digest::Digest;
use kiln_proto::{transfer, v1};
use serde_json::json;

use super::stored::Stored;
use super::{Delivered, Error};
use crate::download::beside_it;

pub(super) use http::is_url as is_http;

/// Maximum number of attempts for a request that fails because of the store.
const ATTEMPTS: u32 = 4;

/// Why a plain store cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refused {
    #[error("`{place}`: {reason}")]
    Address { place: String, reason: String },
    #[error("`{place}` rejected `{path}`: {reason}")]
    Denied { place: String, path: String, reason: String },
    #[error("`{place}` did not store `{path}`: {reason}")]
    Failed { place: String, path: String, reason: String },
    #[error("`{place}` already has another artifact at `{path}`; it was left alone, because ids are never reused")]
    Taken { place: String, path: String },
}

impl Refused {
    /// Whether it is the user's fault rather than the store operator's.
    pub fn is_users(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }

    /// Whether a retry in a moment may succeed.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// A destination for plain files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    /// Parses a destination's URL; `None` if the text is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        (text.starts_with("s3://") || is_http(text)).then(|| Self(text.trim_end_matches('/').to_owned()))
    }

    fn open(&self, insecure: &[String]) -> Result<Box<dyn Store>, Refused> {
        if self.0.starts_with("s3://") {
            Ok(Box::new(bucket::Bucket::open(&self.0)?))
        } else {
            Ok(Box::new(http::Repository::open(&self.0, insecure)?))
        }
    }
}

impl fmt::Display for Place {
    /// Omits secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&http::without_secrets(&self.0))
    }
}

/// A file's content, which can be read repeatedly for retries.
struct Content<'a> {
    stored: &'a Stored,
    digest: Digest,
}

impl Content<'_> {
    fn size(&self) -> u64 {
        self.digest.size
    }

    async fn open(&self) -> Result<BoxStream<'static, Result<Bytes, transfer::Error>>, transfer::Error> {
        use futures::StreamExt;
        Ok(self.stored.client().stream(&self.digest).await?.boxed())
    }
}

/// A store of plain files.
#[async_trait]
trait Store: Send + Sync {
    /// The size of an existing file, in bytes.
    async fn size(&self, path: &str) -> Result<Option<u64>, Refused>;
    /// The content of an existing small file.
    async fn read(&self, path: &str) -> Result<Option<Bytes>, Refused>;
    /// Stores a file, replacing an existing one.
    async fn put(&self, path: &str, content: &Content<'_>) -> Result<(), Refused>;
    /// Stores a small file that must not exist yet.
    async fn create(&self, path: &str, data: Bytes) -> Result<(), Refused>;
}

/// Pushes artifacts to a destination.
pub(super) async fn push(place: &Place, stored: &[Stored], insecure: &[String]) -> Result<Vec<Delivered>, Error> {
    let store = place.open(insecure)?;
    let mut done = Vec::new();
    for one in stored {
        done.push(push_one(place, &*store, one).await?);
    }
    Ok(done)
}

async fn push_one(place: &Place, store: &dyn Store, stored: &Stored) -> Result<Delivered, Error> {
    let artifact = &stored.artifact;
    let files = files(stored)?;
    let list = list(artifact, &files);
    let base = format!("{}/{}", artifact.name, artifact.id);
    let marker = format!("{base}.json");
    let mut moved = (0, 0);
    match patiently(|| store.read(&marker)).await? {
        Some(there) if there == list => moved.1 = files.iter().map(|(_, digest)| digest.size).sum(),
        Some(_) => return Err(Refused::Taken { place: place.to_string(), path: marker }.into()),
        None => {
            for (path, digest) in &files {
                let path = format!("{base}/{path}");
                // Files that an interrupted push stored completely are not sent again.
                if patiently(|| store.size(&path)).await? == Some(digest.size) {
                    moved.1 += digest.size;
                    continue;
                }
                let content = Content { stored, digest: *digest };
                patiently(|| store.put(&path, &content)).await?;
                moved.0 += digest.size;
            }
            patiently(|| store.create(&marker, list.clone())).await?;
        }
    }
    Ok(Delivered {
        name: artifact.name.clone(),
        how: "pushed",
        reference: format!("{place}/{base}"),
        digest: artifact.digest.as_ref().map(|digest| digest.hash.clone()).unwrap_or_default(),
        bytes: moved,
    })
}

/// Every file to push, by path.
fn files(stored: &Stored) -> Result<Vec<(String, Digest)>, Error> {
    let artifact = &stored.artifact;
    let mut files: Vec<(String, Digest)> = stored.files().map(|(path, digest)| (path.to_owned(), *digest)).collect();
    let checksums = artifact.checksums.iter().map(|wire| ("sha256".to_owned(), wire));
    for (ending, wire) in beside_it(artifact).into_iter().chain(checksums) {
        let digest = Digest::from_wire(stored.client().function(), wire);
        let digest = digest.map_err(|error| stored.malformed(error.to_string()))?;
        files.push((format!("{}.{ending}", artifact.name), digest));
    }
    Ok(files)
}

/// The content of the list, always the same for the same artifact.
fn list(artifact: &v1::Artifact, files: &[(String, Digest)]) -> Bytes {
    let text = json!({
        "id": artifact.id,
        "name": artifact.name,
        "version": artifact.version,
        "platform": artifact.platform,
        "kind": artifact.kind,
        "commit": artifact.commit,
        "files": files
            .iter()
            .map(|(path, digest)| json!({ "path": path, digest.function.name(): digest.hex(), "size": digest.size }))
            .collect::<Vec<_>>(),
    });
    format!("{text:#}\n").into_bytes().into()
}

/// Retries requests that fail because of the store.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, Refused>
where
    F: Future<Output = Result<T, Refused>>,
{
    let mut attempts = Attempts::new(ATTEMPTS);
    loop {
        match call().await {
            Err(error) if error.may_pass() && attempts.again(None).await => {}
            result => return result,
        }
    }
}
