//! Errors of the index of step results.

/// The index of step results failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the records of step results cannot be used; builds are not affected")]
    Journal(#[from] kiln_journal::Error),
    #[error("the journal has an invalid record of a step result: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error(transparent)]
    Redis(#[from] kiln_store::redis::Error),
    #[error("cannot prune the shared cache now: {0}; nothing was pruned, try again when it is back")]
    Hindered(String),
}
