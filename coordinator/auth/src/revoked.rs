//! Revocations: a file of names and of certificates' serial numbers that are refused whatever the credentials.

use std::collections::HashSet;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
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
    /// Serial numbers of certificates, in hex.
    #[serde(default)]
    pub serials: HashSet<String>,
}

impl File {
    /// Reads the file; a missing file means no revocations.
    ///
    /// # Errors
    /// If the file exists but cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map(Self::normalised).map_err(|error| wrong(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = toml::to_string(self).map_err(|error| wrong(error.to_string()))?;
        let written = (|| {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file =
                tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(directory)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map(drop).map_err(|error| error.error)
        })();
        written.map_err(|error: std::io::Error| wrong(error.to_string()))
    }

    fn normalised(mut self) -> Self {
        self.serials = self.serials.iter().map(|serial| normal(serial)).collect();
        self
    }

    /// Whether this identity has been revoked.
    pub fn has(&self, identity: &Identity) -> bool {
        self.has_name(&identity.name)
            || [&identity.serial, &identity.family].into_iter().flatten().any(|serial| self.has_serial(serial))
    }

    /// Whether this name of a user, worker or token has been revoked.
    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether this certificate has been revoked.
    pub fn has_serial(&self, serial: &str) -> bool {
        self.serials.contains(&normal(serial))
    }

    /// Withdraws the revocation of a name or a serial number; `false` if there was none.
    pub fn reinstate(&mut self, name: &str, serial: &str) -> bool {
        if serial.is_empty() { self.names.remove(name) } else { self.serials.remove(&normal(serial)) }
    }

    /// Adds a serial number in any notation.
    pub fn add_serial(&mut self, serial: &str) {
        self.serials.insert(normal(serial));
    }
}

/// Normalises a serial number: tools write it with colons, in capitals, or with the zero that keeps it positive in DER.
pub(super) fn normal(serial: &str) -> String {
    let digits: String = serial.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    digits.to_ascii_lowercase().trim_start_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_known_however_it_is_written() {
        let file: File = toml::from_str("serials = [\"00:8F:0A:11\", \"7b\"]").map(File::normalised).unwrap();
        let of = |serial: &str| Identity { serial: Some(serial.to_owned()), ..Identity::anonymous() };
        for revoked in ["8f0a11", "008f0a11", "7b", "007B"] {
            assert!(file.has(&of(revoked)), "expected `{revoked}` to be revoked");
        }
        let mut later = file.clone();
        assert!(later.reinstate("", "8F:0A:11") && !later.reinstate("", "8f0a11") && !later.reinstate("ann", ""));
        for other in ["8f0a110", "8f0a1", "b", ""] {
            assert!(!file.has(&of(other)), "expected `{other}` to be let in");
        }
    }
}
