//! Errors in a `kiln.toml`.

/// What is wrong with a `kiln.toml`, and on which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not valid UTF-8.
    #[error("`kiln.toml` is not valid UTF-8")]
    NotText,
    /// It is not valid TOML.
    #[error("`kiln.toml` line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// An unknown key.
    #[error("`kiln.toml` line {line}: unknown key `{key}` in {table}: {hint}")]
    UnknownKey {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The table that contains it.
        table: String,
        /// A suggestion: the nearest key, or all known keys.
        hint: String,
    },
    /// A required key is missing.
    #[error("`kiln.toml` line {line}: {table} has no `{key}`: add one")]
    MissingKey {
        /// The line of the table, from 1.
        line: usize,
        /// The table.
        table: String,
        /// The missing key.
        key: String,
    },
    /// A value of the wrong type.
    #[error("`kiln.toml` line {line}: `{key}` must be {expected}, found {found}")]
    WrongType {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// An invalid value of the right type.
    #[error("`kiln.toml` line {line}: `{key}` is `{value}`: expected {expected}")]
    BadValue {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What was found.
        value: String,
        /// What was expected.
        expected: String,
    },
}
