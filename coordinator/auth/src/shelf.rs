//! What coordinators of one farm keep for each other for a while: whatever a visitor was given by one of them, the others know.

use std::fmt::Debug;
use std::time::Duration;

use tonic::async_trait;

/// Texts by name that expire.
#[async_trait]
pub trait Shelf: Debug + Send + Sync {
    /// Keeps a text for so long, in place of what has this name.
    ///
    /// # Errors
    /// If the shelf cannot be reached.
    async fn keep(&self, name: &str, text: String, life: Duration) -> Result<(), String>;

    /// Replaces a text that is there, and keeps it for so long from now on; does nothing if it is not.
    ///
    /// # Errors
    /// If the shelf cannot be reached.
    async fn renew(&self, name: &str, text: String, life: Duration) -> Result<(), String>;

    /// A text that has not expired.
    ///
    /// # Errors
    /// If the shelf cannot be reached.
    async fn kept(&self, name: &str) -> Result<Option<String>, String>;

    /// The same, and removes it: of several that take it at once, one has it.
    ///
    /// # Errors
    /// If the shelf cannot be reached.
    async fn take(&self, name: &str) -> Result<Option<String>, String>;
}
