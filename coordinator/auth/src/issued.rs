//! Records issued certificates in a file next to the authority, so that the farm can list its members and detect a
//! revocation of a mistyped name.
//!
//! Invariant: the file has no influence on authentication. If it cannot be written, certificates are issued anyway.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::{Error, Role, authority};

/// One issued certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its holder.
    pub name: String,
    /// The tenant whose builds and cache the holder uses.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// The holder's roles.
    #[serde(default)]
    pub roles: BTreeSet<Role>,
    /// Its serial number, in hex.
    pub serial: String,
    /// Serial number of the first certificate in its line of renewals; its own if it was not renewed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub family: String,

    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "humantime_serde::option")]
    pub expires: Option<SystemTime>,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Certificates that have not expired.
    #[serde(default, rename = "certificate")]
    pub certificates: Vec<Entry>,
}

impl File {
    /// Reads the file; a missing file is an empty list.
    ///
    /// # Errors
    /// If the file exists but cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| wrong(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Adds the first certificate of a PEM chain to the file, and drops expired ones.
    ///
    /// # Errors
    /// If the certificate contains no identity, or the file cannot be written.
    pub fn add(path: &Path, chain: &str) -> Result<(), Error> {
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        let io = |error: std::io::Error| wrong(error.to_string());
        let certificate = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let identity = authority::identify(&certificate).map_err(wrong)?;
        // A coordinator and `kiln farm` may write at the same time.
        let lock = std::fs::File::create(path.with_extension("lock")).map_err(io)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
        let mut file = Self::read(path)?;
        let now = SystemTime::now();
        file.certificates.retain(|entry| entry.expires.is_none_or(|expires| expires > now));
        file.certificates.push(Entry {
            name: identity.name,
            tenant: identity.tenant,
            roles: identity.roles,
            serial: identity.serial.unwrap_or_default(),
            family: identity.family.unwrap_or_default(),
            expires: identity.expires,
        });
        file.write(path)
    }

    fn write(&self, path: &Path) -> Result<(), Error> {
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Identity;
    use crate::authority::{Authority, Subject};

    #[test]
    fn certificates_are_listed_until_they_expire() {
        let made = Authority::create("test", Duration::from_secs(3600)).unwrap();
        let authority = Authority::open(&made.chain, &made.key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("certificates.toml");
        for (name, life) in [("ann", 0), ("bob", 60)] {
            let identity = Identity { name: name.into(), roles: [Role::Builder].into(), ..Identity::anonymous() };
            let made = authority.issue(&Subject::Client(&identity), Duration::from_secs(life)).unwrap();
            File::add(&path, &made.chain).unwrap();
        }
        let file = File::read(&path).unwrap();
        let names: Vec<&str> = file.certificates.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["bob"]);
        assert_eq!(file.certificates[0].serial.len(), 32);
    }
}
