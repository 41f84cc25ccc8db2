//! Sources of images: blobs by descriptor, verified while they are read.

use std::collections::HashMap;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};

use crate::digest::{Digest, Hasher};
use crate::manifest::{Descriptor, Document};
use crate::platform::Others;

/// Maximum size of a manifest or configuration, in bytes. Registries have similar limits.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// A blob's bytes in pieces. An error ends the stream.
pub type ByteStream = BoxStream<'static, Result<Bytes, Error>>;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("`{path}` is not in `{place}`: expected {expected}")]
    Absent { place: String, path: String, expected: &'static str },
    #[error("`{what}` has content `{found}`, which does not match its name: it is damaged; fetch or save it again")]
    Damaged { what: String, found: Digest },
    #[error("`{what}` has {size} bytes: expected a document of at most {MAX_DOCUMENT_BYTES}")]
    TooLarge { what: String, size: u64 },
    #[error("`{place}` is not a valid image: {reason}")]
    NoImage { place: String, reason: String },
    #[error("`{place}` has no image for `{wanted}`; it has {there}")]
    Platform { place: String, wanted: String, there: Others },
    #[error("cannot read `{}`: {source}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Elsewhere(Box<dyn std::error::Error + Send + Sync>),
}

/// The blobs of an image.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// The source's name in errors.
    fn place(&self) -> String;

    /// Opens a blob, without verifying it.
    async fn open(&self, descriptor: &Descriptor) -> Result<ByteStream, Error>;
}

/// Blobs in memory.
#[derive(Debug, Clone, Default)]
pub struct InMemory(HashMap<Digest, Bytes>);

impl InMemory {
    /// Adds a blob.
    pub fn add(&mut self, document: &Document) {
        self.0.insert(document.descriptor.digest, document.data.clone());
    }
}

#[async_trait]
impl Blobs for InMemory {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn open(&self, descriptor: &Descriptor) -> Result<ByteStream, Error> {
        let absent = || Error::Absent {
            place: self.place(),
            path: descriptor.digest.to_string(),
            expected: "every blob of the image",
        };
        let data = self.0.get(&descriptor.digest).cloned().ok_or_else(absent)?;
        Ok(futures::stream::iter([Ok(data)]).boxed())
    }
}

/// Reads a whole document and verifies it.
pub async fn document(blobs: &dyn Blobs, descriptor: &Descriptor) -> Result<Bytes, Error> {
    let what = descriptor.digest.to_string();
    if descriptor.size > MAX_DOCUMENT_BYTES {
        return Err(Error::TooLarge { what, size: descriptor.size });
    }
    let mut data = BytesMut::new();
    let mut pieces = checked(blobs.open(descriptor).await?, descriptor);
    while let Some(piece) = pieces.try_next().await? {
        data.extend_from_slice(&piece);
    }
    Ok(data.freeze())
}

/// The stream, with an error at its end if it does not match the descriptor.
pub fn checked(
    pieces: impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + 'static,
    descriptor: &Descriptor,
) -> ByteStream {
    let (expected, size) = (descriptor.digest, descriptor.size);
    let state = (pieces, Hasher::default(), false);
    futures::stream::unfold(state, move |(mut pieces, mut hasher, ended)| async move {
        if ended {
            return None;
        }
        match pieces.next().await {
            Some(Ok(piece)) => {
                hasher.update(&piece);
                let over = hasher.size() > size;
                let result = if over { Err(damaged(&expected, hasher.clone())) } else { Ok(piece) };
                Some((result, (pieces, hasher, over)))
            }
            Some(Err(error)) => Some((Err(error), (pieces, hasher, true))),
            None if hasher.clone().finish() == expected => None,
            None => Some((Err(damaged(&expected, hasher.clone())), (pieces, hasher, true))),
        }
    })
    .boxed()
}

fn damaged(expected: &Digest, hasher: Hasher) -> Error {
    Error::Damaged { what: expected.to_string(), found: hasher.finish() }
}
