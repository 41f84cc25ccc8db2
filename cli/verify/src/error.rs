//! Why something cannot be verified at all.

use std::path::PathBuf;

use kiln_images::registry;

/// Why something cannot be verified at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot read `{}`", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}`: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error(transparent)]
    Policy(#[from] kiln_options::Error),
    #[error("`{place}` is not what its name says: {reason}")]
    Tampered { place: String, reason: String },
    #[error(transparent)]
    Registry(#[from] Box<registry::Error>),
    #[error("invalid key `{id}` from the farm: {reason}")]
    Key { id: String, reason: String },
}

impl Error {
    /// Whether what was found is refused, rather than unreadable.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Tampered { .. } => true,
            // What was sent is not what was asked for by its digest.
            Self::Registry(error) => matches!(**error, registry::Error::Malformed { .. }),
            _ => false,
        }
    }

    /// Whether a registry did not answer, rather than the user being wrong.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Registry(error) if !error.is_users())
    }
}
