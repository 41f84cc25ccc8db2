//! Why something cannot be written.

use std::io;
use std::path::PathBuf;

use kiln_images::{blobs, registry};
use kiln_trees::root::tar::TarError;

/// Why something cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("annotations of the index need an index; build for several platforms, or with attestations")]
    NoIndex,
    #[error("cannot write `{}`", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("platforms have different files at `{path}`; leave out `platform-split=false`")]
    Conflict { path: String },
    #[error("cannot read the image")]
    Blobs(#[from] blobs::Error),
    #[error("cannot unpack the image: {0}")]
    Layer(#[from] TarError),
    #[error("cannot unpack the image: {0}")]
    Tree(#[from] kiln_trees::root::Error),
    #[error("a document of the image is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("cannot write a temporary file")]
    Temporary(#[source] io::Error),
    #[error("`--tag`: {0}")]
    Tag(String),
    #[error("cannot push `{reference}`")]
    Push {
        reference: String,
        #[source]
        source: Box<registry::Error>,
    },
    #[error(transparent)]
    Registry(#[from] Box<registry::Error>),
    #[error("cannot load `{name}` into Docker: {reason}")]
    Load { name: String, reason: String },
    #[error("the build produced no image")]
    NoImage,
    /// What another output has failed with too.
    #[error("{reason}")]
    Again { reason: String, is_users: bool },
}

impl Error {
    /// Whether the user can fix it.
    pub fn is_users(&self) -> bool {
        match self {
            Self::NoIndex | Self::Write { .. } | Self::Conflict { .. } | Self::Temporary(_) => true,
            Self::Tag(_) | Self::Load { .. } | Self::NoImage => true,
            Self::Push { source, .. } | Self::Registry(source) => source.is_users(),
            Self::Again { is_users, .. } => *is_users,
            Self::Blobs(_) | Self::Layer(_) | Self::Tree(_) | Self::Malformed(_) => false,
        }
    }

    /// It with its causes.
    pub(crate) fn chain(&self) -> String {
        let mut words = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            words.push_str(&format!(": {error}"));
            next = error.source();
        }
        words
    }

    /// The same for another output.
    pub(crate) fn again(&self) -> Self {
        Self::Again { reason: self.chain(), is_users: self.is_users() }
    }
}
