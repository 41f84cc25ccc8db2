//! Why an instruction cannot be carried out.

use kiln_proto::digest::Digest;
use kiln_trees::root::{self, tar::TarError};
use kiln_trees::walk::Malformed;

/// Why an instruction cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("`{path}` does not exist{there}")]
    Absent { path: String, there: String },
    #[error("`{path}` is a directory, and `{over}` is a file")]
    DirectoryOverFile { path: String, over: String },
    #[error("`{over}` is a directory, and `{path}` is not: add a slash to the destination to copy into it")]
    FileOverDirectory { path: String, over: String },
    #[error("cannot find {kind} `{name}` in the image's `{file}`; name it by its number, or create it before")]
    Account { kind: &'static str, name: String, file: &'static str },
    #[error("invalid mode `{0}`; expected an octal number, or changes such as `u=rwX,go=rX`")]
    Mode(String),
    #[error("`{path}`: {reason}")]
    Pattern { path: String, reason: String },
    #[error("`{path}` is not an archive that can be unpacked: {reason}")]
    Archive { path: String, reason: String },
    #[error(transparent)]
    Tree(#[from] root::Error),
    #[error("the farm no longer has directory `{0}`")]
    Gone(Digest),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("layer {number} of `{image}` cannot be read: {source}")]
    Layer { image: String, number: usize, source: TarError },
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error("cannot write a layer: {0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// Whether the project or its image is at fault, and not the farm.
    pub fn is_project_fault(&self) -> bool {
        !matches!(self, Self::Gone(_) | Self::Store(_) | Self::Io(_))
    }
}

impl From<kiln_store::files::PutError> for Error {
    fn from(error: kiln_store::files::PutError) -> Self {
        match error {
            kiln_store::files::PutError::Io(error) => Self::Io(error),
            kiln_store::files::PutError::Store(error) => Self::Store(error),
        }
    }
}

impl From<root::ReadError<kiln_store::Error>> for Error {
    fn from(error: root::ReadError<kiln_store::Error>) -> Self {
        match error {
            root::ReadError::Operation(error) => Self::Tree(error),
            root::ReadError::Absent(digest) => Self::Gone(digest),
            root::ReadError::Malformed(malformed) => Self::Malformed(malformed),
            root::ReadError::Source(error) => Self::Store(error),
        }
    }
}
