//! Words: quotes, escapes and variables, as a Dockerfile writes them.
//!
//! A subset of the shell's rules. All operators of `${…}` are known: `:-` `-` `:+` `+` `:?` `?`, `#` `##` `%` `%%` with patterns,
//! and `/` `//` for replacement.
//!
//! Invariant: what a text expands to is bounded, and so is the time it takes.

mod dollar;
mod pattern;
mod scan;

use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of bytes that one text expands to.
pub const MAX_EXPANDED: usize = 1 << 20;

/// Variables by name.
pub trait Variables {
    /// The value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// No variables.
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// How to read a text.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    /// The escape character.
    pub escape: char,
    /// Quotes stay in the result.
    pub keep_quotes: bool,
    /// Escape characters stay in the result.
    pub keep_escapes: bool,
    /// Quotes have no meaning.
    pub ignore_quotes: bool,
    /// Variables that are not set stay as they are written.
    pub keep_unset: bool,
}

/// What a text expands to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The words of the text. White space in quotes, or after an escape character, does not separate words.
    pub words: Vec<String>,
    /// Variables that were asked for and set.
    pub used: BTreeSet<String>,
    /// Variables that were asked for and not set.
    pub unset: BTreeSet<String>,
}

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A quote without its end.
    #[error("a {0} quote has no end")]
    Quote(&'static str),
    /// `${` without `}`.
    #[error("`${{` has no `}}`")]
    Brace,
    /// `${NAME/` without a second `/`.
    #[error("`${{{0}/…` has no second `/`")]
    Slash(String),
    /// `${` is followed by something other than a name.
    #[error("`${{` is not followed by a variable's name")]
    Name,
    /// An operator that does not exist.
    #[error("unknown operator `{operator}` in `${{{name}{operator}…}}`")]
    Operator {
        /// The variable.
        name: String,
        /// What follows its name.
        operator: String,
    },
    /// `?` found no value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the Dockerfile says about it, or a default.
        message: String,
    },
    /// A pattern that cannot be used.
    #[error("invalid pattern `{pattern}`: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too many levels.
    #[error("variables are nested more than {0} levels deep")]
    Deep(usize),
    /// Too long.
    #[error("the text expands to more than {MAX_EXPANDED} bytes")]
    Long,
}

impl Lexer {
    /// Quotes and escapes are removed, and a variable that is not set is empty.
    pub fn new(escape: char) -> Self {
        Self { escape, keep_quotes: false, keep_escapes: false, ignore_quotes: false, keep_unset: false }
    }

    /// Expands a text.
    ///
    /// # Errors
    /// If a quote or a `${` has no end, or an operator fails.
    pub fn expand(&self, text: &str, variables: &dyn Variables) -> Result<Expanded, Error> {
        scan::Scan::new(*self, text, variables).run()
    }
}
