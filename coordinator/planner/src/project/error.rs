//! What can be wrong with a `kiln.toml`.

/// What is wrong with a `kiln.toml`, and on which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no UTF-8.
    #[error("`kiln.toml` is not valid UTF-8")]
    NotText,
    /// It is no TOML.
    #[error("`kiln.toml` line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A key that means nothing.
    #[error("`kiln.toml` line {line}: unknown key `{key}` in {table}: {hint}")]
    UnknownKey {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The table it stands in, in words.
        table: String,
        /// The nearest key, or those there are, in words.
        hint: String,
    },
    /// A required key is not there.
    #[error("`kiln.toml` line {line}: {table} has no `{key}`: add one")]
    MissingKey {
        /// The line of the table, from 1.
        line: usize,
        /// The table.
        table: String,
        /// The key it lacks.
        key: String,
    },
    /// A value of another type.
    #[error("`kiln.toml` line {line}: `{key}` must be {expected}, found {found}")]
    WrongType {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What was expected, in words.
        expected: &'static str,
        /// What was found, in words.
        found: &'static str,
    },
    /// A value of the right type that means nothing.
    #[error("`kiln.toml` line {line}: `{key}` is `{value}`: expected {expected}")]
    BadValue {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What was found.
        value: String,
        /// What was expected, in words.
        expected: String,
    },
}
