//! Queries on a source tree that every detector uses.
//!
//! Invariant: paths are relative to the root and separated by `/`; the root itself is the empty string.

use crate::Error;
use kiln_plan::Source;
pub use kiln_plan::paths::{base, has, join, parent};

/// Whether there are any files below a directory.
pub fn has_directory(source: &dyn Source, directory: &str) -> bool {
    let prefix = format!("{directory}/");
    let start = source.paths().partition_point(|p| p.as_str() < prefix.as_str());
    source.paths().get(start).is_some_and(|p| p.starts_with(&prefix))
}

/// The first of these paths that exists.
pub fn first_of<'a>(source: &dyn Source, paths: &[&'a str]) -> Option<&'a str> {
    paths.iter().copied().find(|path| has(source, path))
}

/// Those of these paths that exist.
pub fn all_of(source: &dyn Source, paths: &[&str]) -> Vec<String> {
    paths.iter().filter(|path| has(source, path)).map(|path| (*path).to_owned()).collect()
}

/// The paths whose base name `wanted` accepts, except in installed packages.
pub fn named(source: &dyn Source, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let foreign = |path: &str| path.split('/').any(|part| part == "node_modules" || part == ".venv");
    source.paths().iter().filter(|path| wanted(base(path)) && !foreign(path)).cloned().collect()
}

/// The text of a file; invalid UTF-8 is replaced.
pub fn text(source: &dyn Source, path: &str) -> Option<String> {
    source.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a TOML file.
pub fn toml(source: &dyn Source, path: &str) -> Result<Option<toml::Table>, Error> {
    let Some(text) = text(source, path) else {
        return Ok(None);
    };
    let parsed = text.parse().map_err(|e: toml::de::Error| Error::Manifest {
        path: path.to_owned(),
        message: e.message().trim().replace('\n', ", "),
    })?;
    Ok(Some(parsed))
}

/// Reads a JSON file.
pub fn json(source: &dyn Source, path: &str) -> Result<Option<serde_json::Value>, Error> {
    let Some(bytes) = source.read(path) else {
        return Ok(None);
    };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let parsed =
        serde_json::from_slice(bytes).map_err(|e| Error::Manifest { path: path.to_owned(), message: e.to_string() })?;
    Ok(Some(parsed))
}

/// Reads a file of JSON in which comments and last commas are allowed.
pub fn jsonc(source: &dyn Source, path: &str) -> Result<Option<serde_json::Value>, Error> {
    let Some(text) = text(source, path) else {
        return Ok(None);
    };
    read_jsonc(&text).map(Some).map_err(|e| Error::Manifest { path: path.to_owned(), message: e.to_string() })
}

/// Reads JSON in which comments and last commas are allowed.
pub fn read_jsonc(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(&crate::jsonc::plain(text.trim_start_matches('\u{feff}')))
}

/// A word for `sh`, quoted if necessary.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@' | ':' | '+' | '=' | ',');
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A glob that matches exactly this path.
pub fn literal(path: &str) -> String {
    let mut glob = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            glob.push('\\');
        }
        glob.push(c);
    }
    glob
}
