//! Keys that the user trusts.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_attest::{Key, Keys, PublicKey};

use crate::Error;

/// Reads the files that a user names.
///
/// # Errors
/// If one cannot be read, or has no public key.
pub fn of_files(paths: &[PathBuf]) -> Result<Keys, Error> {
    let mut keys = Keys::default();
    for path in paths {
        keys.extend(of_file(path)?);
    }
    Ok(keys)
}

fn of_file(path: &Path) -> Result<Keys, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Keys::parse(&text).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })
}

/// A key as a farm tells it: id, PEM, and the times in which it signs.
///
/// # Errors
/// If it is malformed, or has another id.
pub fn of_wire(id: &str, pem: &str, created: Option<SystemTime>, not_after: Option<SystemTime>) -> Result<Key, Error> {
    let wrong = |reason: String| Error::Key { id: id.to_owned(), reason };
    let public = PublicKey::from_pem(pem).map_err(|error| wrong(error.to_string()))?;
    if public.id() != id {
        return Err(wrong(format!("its id is `{}`", public.id())));
    }
    Ok(Key { public, created, not_after })
}
