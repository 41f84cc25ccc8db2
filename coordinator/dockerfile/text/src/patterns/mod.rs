//! Patterns for paths: `.dockerignore`, `--exclude`, `--parents` and the sources of `COPY`.
//!
//! There are two languages. Sources are Go's `filepath.Match` ([`Glob`]). The others are lists in which the last match counts
//! ([`Patterns`]): a pattern also matches everything below what it matches, `**` is any number of directories, and `!` takes paths
//! out again. Neither is `.gitignore`'s: a pattern without a slash does not match in subdirectories.

mod glob;
mod ignore;
mod set;
mod tokens;

pub use glob::{Glob, has_wildcards};
pub use ignore::Ignore;
pub use set::{Parents, Patterns};

/// Why a pattern is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A class without an end or without a character.
    #[error("`[` must be followed by characters and `]`")]
    Class,
    /// A lone escape character.
    #[error("it ends with `\\`")]
    Escape,
    /// `!` alone.
    #[error("`!` is not followed by a pattern")]
    Exception,
    /// Too long.
    #[error("it is longer than {0} bytes")]
    Long(usize),
}
