//! What an executor copies for a `COPY` or an `ADD`.

/// `COPY`, or `ADD` of what has been fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The files that it adds to.
    pub root: usize,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Where to: absolute. With a slash at its end, it is a directory.
    pub destination: String,
    /// `--chown`: numbers, or names in the destination's `/etc/passwd` and `/etc/group`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<Chmod>,
    /// Whether the files are a layer that does not depend on what is below it: links of the destination are not followed.
    pub link: bool,
    /// `--exclude`, in the language of [`crate::patterns::Patterns`].
    pub excludes: Vec<String>,
}

/// A mode of `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// Of 12 bits.
    Octal(u32),
    /// Such as `u=rwX,go=rX`.
    Symbolic(String),
}

/// What `COPY` or `ADD` copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// Files of another operation. Of a directory, what is in it. Links that the path names are followed.
    Files {
        /// The operation.
        from: usize,
        /// The path, absolute and cleaned, or a pattern of it in the language of [`crate::patterns::Glob`].
        path: String,
        /// With `--parents`.
        parents: Option<WithParents>,
        /// Whether an archive, known by its content, is unpacked.
        unpack: bool,
    },
    /// The file of a [`super::Operator::Fetch`].
    Fetched {
        /// The operation.
        from: usize,
        /// The file's name.
        file: String,
        /// Whether an archive is unpacked.
        unpack: bool,
    },
    /// All files of a [`super::Operator::Git`].
    Repository(usize),
    /// A file that the Dockerfile contains. Its mode is 0644.
    Inline {
        /// Its name.
        name: String,
        /// Its content.
        data: String,
    },
}

/// How `--parents` copies: what matches below the source's path keeps its directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithParents {
    /// What matches, in the language of [`crate::patterns::Patterns`].
    pub pattern: String,
    /// A path that must exist: the pattern is none.
    pub required: Option<String>,
}

impl CopySource {
    /// The operation whose files it copies.
    pub fn from(&self) -> Option<usize> {
        match self {
            Self::Files { from, .. } | Self::Fetched { from, .. } | Self::Repository(from) => Some(*from),
            Self::Inline { .. } => None,
        }
    }
}
