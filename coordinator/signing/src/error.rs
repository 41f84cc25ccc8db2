//! Why something cannot be signed.

use std::path::PathBuf;

/// Why something cannot be signed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("`{}` cannot be used: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error("`{given}` requires `{missing}`")]
    Pair { given: &'static str, missing: &'static str },
    #[error("no signing key is valid now; `kiln farm rotate-signing-key FILE --overlap 0s` creates one that is")]
    NoneValid,
    #[error("cannot sign: {0}")]
    Sign(#[source] kiln_attest::Error),
    #[error("the signing command `{command}` {reason}")]
    Command { command: String, reason: String },
}
