//! Errors in the configuration of authentication and authorisation.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a coordinator does not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot use `{}`: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error(
        "`{address}` can be reached from other machines, and {what}; use `--farm-dir` with a directory from `kiln farm init`, or \
         `--insecure` to let everyone who reaches it do everything"
    )]
    Open { address: SocketAddr, what: &'static str },
    #[error("cannot use what the farm's coordinators know of its members: {reason}; try again")]
    Ledger { reason: String },
    #[error("`{given}` requires `{missing}`")]
    Pair { given: &'static str, missing: &'static str },
    #[error(transparent)]
    Key(#[from] kiln_state::farm_key::Error),
    #[error(transparent)]
    Authority(#[from] super::authority::Error),
}
