//! TOML with the line of each key and value.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Error;

/// A file's text and its path, for places in it.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`, line {}", self.path.display(), self.line)
    }
}

impl Document {
    /// A file with this text.
    pub fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text }
    }

    /// The table that the file is.
    ///
    /// # Errors
    /// Where it is not TOML.
    pub fn table(&self) -> Result<DeTable<'_>, Error> {
        DeTable::parse(&self.text).map(Spanned::into_inner).map_err(|error| self.wrong(&error))
    }

    /// What is wrong with the file's syntax or types, by its place.
    pub fn wrong(&self, error: &toml::de::Error) -> Error {
        let at = error.span().map_or(0, |span| span.start);
        Error::Invalid { place: self.line(at), reason: error.message().trim().replace('\n', ", ") }
    }

    /// The place of a key or a value.
    pub fn place<T>(&self, spanned: &Spanned<T>) -> Place {
        self.line(spanned.span().start)
    }

    /// Refuses keys of a table that there are not. `prefix` is what stands before them, such as `farms.team.`.
    ///
    /// # Errors
    /// The first such key, its place, and the nearest one.
    pub fn known_keys(&self, table: &DeTable<'_>, known: &[&str], prefix: &str) -> Result<(), Error> {
        let Some(key) = table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) else { return Ok(()) };
        Err(self.unknown(key, known, prefix))
    }

    /// The error for a key that there is not.
    pub fn unknown(&self, key: &Spanned<impl AsRef<str>>, known: &[&str], prefix: &str) -> Error {
        let name = key.get_ref().as_ref();
        let hint = crate::did_you_mean(name, known);
        Error::Invalid { place: self.place(key), reason: format!("there is no `{prefix}{name}`{hint}") }
    }

    fn line(&self, at: usize) -> Place {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count().saturating_add(1);
        Place { path: self.path.clone(), line }
    }
}

/// What a value is, for a message.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
