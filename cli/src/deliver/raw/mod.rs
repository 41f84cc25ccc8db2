//! Artifacts as plain files in a store: a bucket, or a repository that takes files by HTTP PUT.
//!
//! Under the place that was named, `NAME/ID/…` holds an artifact's files with its provenance, SBOM and checksums, and `NAME/ID.json`
//! lists them. Invariant: the list is written last and never again, so an artifact without its list is not there yet, and one with it
//! is whole.

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

pub(super) use http::is_url as is_http;

/// How often a request that fails by the store's fault is made in all.
const ATTEMPTS: u32 = 4;

/// A plain store that cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refused {
    #[error("`{place}`: {reason}")]
    Address { place: String, reason: String },
    #[error("`{place}` refuses `{path}`: {reason}")]
    Denied { place: String, path: String, reason: String },
    #[error("`{place}` did not take `{path}`: {reason}")]
    Failed { place: String, path: String, reason: String },
    #[error("`{place}` already has another artifact at `{path}`; it was left alone, because ids are never reused")]
    Taken { place: String, path: String },
}

impl Refused {
    /// Whether the user must mend it, as opposed to who runs the store.
    pub fn is_users(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }

    /// Whether the same may work a moment later.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// Where plain files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    /// A place by its URL; none where the words are no such URL.
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
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&http::without_secrets(&self.0))
    }
}

/// The bytes of a file, to be had as often as they must be sent.
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

/// A store of plain files by path.
#[async_trait]
trait Store: Send + Sync {
    /// The size of a file that is there, in bytes.
    async fn size(&self, path: &str) -> Result<Option<u64>, Refused>;
    /// A small file that is there.
    async fn read(&self, path: &str) -> Result<Option<Bytes>, Refused>;
    /// Puts a file; what is there before is replaced.
    async fn put(&self, path: &str, content: &Content<'_>) -> Result<(), Refused>;
    /// Puts a small file that is not there.
    async fn create(&self, path: &str, data: Bytes) -> Result<(), Refused>;
}

/// Pushes artifacts to a place.
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
                // What a push that broke off has left whole is not sent again.
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

/// Every file that goes along, by path.
fn files(stored: &Stored) -> Result<Vec<(String, Digest)>, Error> {
    let artifact = &stored.artifact;
    let mut files: Vec<(String, Digest)> = stored.files().map(|(path, digest)| (path.to_owned(), *digest)).collect();
    let beside =
        [(&artifact.provenance, "provenance.json"), (&artifact.sbom, "cdx.json"), (&artifact.checksums, "sha256")];
    for (wire, ending) in beside {
        let Some(wire) = wire else { continue };
        let digest = Digest::from_wire(stored.client().function(), wire);
        let digest = digest.map_err(|error| stored.malformed(error.to_string()))?;
        files.push((format!("{}.{ending}", artifact.name), digest));
    }
    Ok(files)
}

/// What the list says; the same for the same artifact, whenever it is pushed.
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

/// Tries again what fails by the store's fault.
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
