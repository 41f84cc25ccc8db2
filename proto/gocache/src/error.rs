//! Errors.

use std::path::PathBuf;

/// Why `go` cannot be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot create `{}`", .path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("go broke off")]
    Pipe(#[source] std::io::Error),
    #[error("go said what is not understood: {0}")]
    Protocol(String),
}
