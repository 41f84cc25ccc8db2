//! What the scanner asks its caller, and what it answers if it cannot tell.

use std::path::{Path, PathBuf};

use crate::manifest::Present;

/// How many files a call may include.
pub(super) const MAX_FILES: usize = 20_000;

/// The files of a step, and what is in them. All paths are absolute.
pub trait Sources: Present {
    /// The content of a regular file.
    fn content(&self, path: &Path) -> Option<Vec<u8>>;

    /// The path of a directory without symbolic links, which tells it from others; `None` if there is no directory.
    fn directory(&self, path: &Path) -> Option<PathBuf>;
}

/// Why what a call includes cannot be told without the preprocessor. Ask the compiler (`-M`), or run the call and record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fallback {
    #[error("`{}` includes `{operand}`, which only the preprocessor can expand", file.display())]
    Computed { file: PathBuf, operand: String },
    #[error("`{}` has the assembler read a file", file.display())]
    Assembler { file: PathBuf },
    #[error("`{}` is a directory of precompiled headers", path.display())]
    PrecompiledHeaders { path: PathBuf },
    #[error("`{}` vanished while it was read", path.display())]
    Unreadable { path: PathBuf },
    #[error("more than {MAX_FILES} files are included")]
    TooMany,
    #[error("the call is not one of a C or C++ compiler")]
    Language,
}
