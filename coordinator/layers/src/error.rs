//! What can go wrong with the index of layers.

/// An index of layers that does not answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the index of layers fails; builds go on without it")]
    Index(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the index of layers has an invalid record: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error(transparent)]
    Redis(#[from] kiln_store::redis::Error),
    #[error("cannot prune the shared cache now: {0}; nothing was pruned, try again when it is back")]
    Hindered(String),
    #[error("the coordinator is shutting down; try again")]
    Stopping,
}

impl Error {
    /// From an engine's own error.
    pub fn index(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Index(error.into())
    }
}
