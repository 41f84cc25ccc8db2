//! What replicas keep for each other for a while, whoever of them leads.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Error;

/// Values by name that expire, such as the sessions of browsers.
#[async_trait]
pub trait Shelf: Debug + Send + Sync {
    /// Keeps a value for so long, in place of what has this name.
    ///
    /// # Errors
    /// If the shelf cannot be reached.
    async fn keep(&self, name: &str, value: &[u8], life: Duration) -> Result<(), Error>;

    /// Replaces a value that is there, and keeps it for so long from now on; does nothing if it is not.
    ///
    /// # Errors
    /// If the shelf cannot be reached.
    async fn renew(&self, name: &str, value: &[u8], life: Duration) -> Result<(), Error>;

    /// A value that has not expired. One that this farm's key does not seal counts as absent.
    ///
    /// # Errors
    /// If the shelf cannot be reached.
    async fn kept(&self, name: &str) -> Result<Option<Bytes>, Error>;

    /// The same, and removes it: of several that take it at once, one has it.
    ///
    /// # Errors
    /// If the shelf cannot be reached.
    async fn take(&self, name: &str) -> Result<Option<Bytes>, Error>;
}
