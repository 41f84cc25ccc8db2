//! Go's `filepath.Match`: `*`, `?`, `[…]` and `\`; neither `*` nor `?` matches a slash.

use super::Invalid;
use super::tokens::{Deep, Token, matches, read};

/// A pattern for a path. All of the path must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// If it is invalid.
    pub fn new(pattern: &str) -> Result<Self, Invalid> {
        Ok(Self { tokens: read(pattern, Deep::No)? })
    }

    /// Whether a path matches.
    pub fn matches(&self, path: &str) -> bool {
        matches(&self.tokens, path)
    }
}

/// Whether a source of `COPY` is a pattern: one that matches nothing is no error, a path that does not exist is one.
pub fn has_wildcards(source: &str) -> bool {
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}
