//! Errors.

use std::path::PathBuf;

/// Why settings cannot be printed, or a helper cannot work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "the farm at `{farm}` serves no caches of build tools; start its coordinator with `--cache-listen ADDRESS` \
         (`kiln up` serves them by itself)"
    )]
    NotServed { farm: String },
    #[error(
        "cannot tell the address of the caches of the farm at `{farm}`; start its coordinator with `--cache-url URL`"
    )]
    Address { farm: String },
    #[error("{tool} cannot use this farm's cache: {reason}")]
    Unusable { tool: &'static str, reason: &'static str },
    #[error(transparent)]
    Access(#[from] kiln_proto::channel::AccessError),
    #[error("cannot call the cache at `{url}`: {reason}")]
    Client { url: String, reason: String },
    #[error(
        "`--url {url}` would send the token over plain HTTP to another machine, where others can read it; serve the caches with a \
         certificate"
    )]
    Exposed { url: String },
    #[error("cannot {doing} `{}`", .path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Go(#[from] kiln_gocache::Error),
    #[error("{tool} broke off")]
    Pipe {
        tool: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{tool} said what is not understood: {reason}")]
    Protocol { tool: &'static str, reason: String },
}
