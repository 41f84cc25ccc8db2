//! Why a context cannot be read. Every error is the user's to fix.

use std::io;
use std::path::PathBuf;

/// Why a context cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("there is no directory `{path}` to build from; expected a directory, a repository, a URL or `-`")]
    NoContext { path: String },
    #[error("cannot read the Dockerfile `{}`{hint}", .path.display())]
    Dockerfile {
        path: PathBuf,
        hint: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no `{file}` in {place}; name the Dockerfile by `--file`")]
    NoFile { file: String, place: String },
    #[error("cannot build from `{context}`: {reason}")]
    Context { context: String, reason: String },
    #[error("context `{name}`: {reason}")]
    Named { name: String, reason: String },
    #[error("cannot read standard input")]
    Stdin(#[source] io::Error),
    #[error("cannot read `{}`; make it readable, or list it in `.dockerignore`", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the name `{}` is not valid UTF-8 and cannot be sent to another machine; rename it, or list it in `.dockerignore`", .path.display())]
    Name { path: PathBuf },
    #[error("the archive {shown}: {reason}")]
    Archive { shown: String, reason: String },
    #[error("cannot fetch `{remote}`: {reason}")]
    Fetch { remote: String, reason: String },
    #[error("cannot write a temporary file")]
    Temporary(#[source] io::Error),
    #[error(transparent)]
    Ignore(#[from] kiln_dockerfile::Error),
    #[error(transparent)]
    Scan(kiln_scan::Error),
    #[error(transparent)]
    Tree(#[from] kiln_trees::tree::Error),
}

impl From<kiln_scan::Error> for Error {
    fn from(error: kiln_scan::Error) -> Self {
        match error {
            kiln_scan::Error::Name { path } => Self::Name { path },
            kiln_scan::Error::Read { path, source } => Self::Read { path, source },
            other => Self::Scan(other),
        }
    }
}
