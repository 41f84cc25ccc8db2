//! Signed statements about artifacts: what they look like, and whether they are genuine.
//!
//! A statement (in-toto) says something about files by their digests. An envelope (DSSE) signs its bytes; a bundle (Sigstore) is a file
//! with an envelope. Nothing here knows what a statement is for.
//!
//! Invariant: a statement is only read from bytes whose signature was verified with one of the keys that the caller trusts. No input makes
//! this crate panic, and none is read beyond [`MAX_BYTES`].

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod base64;
mod bundle;
mod envelope;
mod key;
mod keys;
mod private;
mod statement;

pub use bundle::{MEDIA_TYPE, bundle, parse};
pub use envelope::{Envelope, PAYLOAD_TYPE, Signature, pae};
pub use key::{Algorithm, PublicKey};
pub use keys::{Key, Keys, Secret, State};
pub use private::PrivateKey;
pub use statement::{STATEMENT_TYPE, Statement, Subject};

/// Maximum size of a bundle, an envelope or a file of keys.
pub const MAX_BYTES: usize = 64 << 20;

/// Why something is not accepted.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid {what}: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("the {what} is larger than {} MiB", MAX_BYTES >> 20)]
    Large { what: &'static str },
    #[error(
        "none of the trusted keys made the signature: it names the key `{hint}`, and trusted are {}; if the farm has a newer key, \
         fetch it with `kiln farm keys`",
        among(.trusted)
    )]
    Untrusted { hint: String, trusted: Vec<String> },
    #[error("the signature does not match its content, which names the trusted key `{key}`: one of them was changed")]
    Forged { key: String },
    #[error("unsupported key: {0}; expected ECDSA with the curve P-256, or Ed25519")]
    Unsupported(String),
    #[error("{0} cannot sign")]
    Signing(&'static str),
}

impl Error {
    fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}

fn among(keys: &[String]) -> String {
    match keys {
        [] => "none".to_owned(),
        some => some.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
    }
}
