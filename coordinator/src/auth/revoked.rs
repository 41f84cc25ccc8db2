//! Who is no longer let in, whatever they show: a file of names and of certificates' serial numbers.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Identity};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Names of people, tokens and workers.
    #[serde(default)]
    pub names: HashSet<String>,
    /// Serial numbers of certificates, in lower-case hex.
    #[serde(default)]
    pub serials: HashSet<String>,
}

impl File {
    /// Reads the file; where there is none, nobody is revoked.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| wrong(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Whether this one is no longer let in.
    pub fn has(&self, identity: &Identity) -> bool {
        self.names.contains(&identity.name)
            || identity.serial.as_ref().is_some_and(|serial| self.serials.contains(serial))
    }
}
