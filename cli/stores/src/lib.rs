//! Stores of plain files that artifacts are pushed to: buckets, and repositories that accept files by HTTP PUT.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod bucket;
mod http;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use kiln_images::registry::Attempts;
use kiln_proto::digest::Digest;
use kiln_proto::transfer::{self, Client};

pub use http::is_url as is_http;

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
pub struct Place(String);

impl Place {
    /// Parses a destination's URL; `None` if the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        (text.starts_with("s3://") || is_http(text)).then(|| Self(text.trim_end_matches('/').to_owned()))
    }

    /// Opens the store. Plain HTTP is only used for this machine and for the hosts in `insecure`.
    ///
    /// # Errors
    /// If the address is wrong, or its credentials are missing.
    pub fn open(&self, insecure: &[String]) -> Result<Box<dyn Store>, Refused> {
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

/// A file's content on the farm, which can be read repeatedly for retries.
#[derive(Debug)]
pub struct Content<'a> {
    /// The farm.
    pub client: &'a Client,
    /// The file.
    pub digest: Digest,
}

impl Content<'_> {
    fn size(&self) -> u64 {
        self.digest.size
    }

    async fn open(&self) -> Result<BoxStream<'static, Result<Bytes, transfer::Error>>, transfer::Error> {
        Ok(self.client.stream(&self.digest).await?.boxed())
    }
}

/// A store of plain files.
#[async_trait]
pub trait Store: Send + Sync {
    /// The size of an existing file, in bytes.
    async fn size(&self, path: &str) -> Result<Option<u64>, Refused>;
    /// The content of an existing small file.
    async fn read(&self, path: &str) -> Result<Option<Bytes>, Refused>;
    /// Stores a file, replacing an existing one.
    async fn put(&self, path: &str, content: &Content<'_>) -> Result<(), Refused>;
    /// Stores a small file that must not exist yet.
    async fn create(&self, path: &str, data: Bytes) -> Result<(), Refused>;
}

/// Retries requests that fail because of the store.
///
/// # Errors
/// What the last attempt said.
pub async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, Refused>
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
