//! Records which workers joined, with which token and key, in the coordinator's data directory.
//!
//! Invariant: a token is not used more often than it allows, and a name belongs to one key, even after a restart: each
//! decision is on disk before the worker gets its certificate.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::ledger::{self, Ledger};
use super::{Error, revoked};

/// A worker's certificate that has not expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Worker {
    name: String,
    /// SHA-256 of its public key, in hex.
    key: String,
    serial: String,
    family: String,
    #[serde(with = "humantime_serde")]
    expires: SystemTime,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Number of uses of each token, by its hash.
    #[serde(default)]
    used: BTreeMap<String, u32>,
    #[serde(default, rename = "worker")]
    workers: Vec<Worker>,
    /// Keys that a use was counted for and that have no certificate yet, with their names: the answer may have been lost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    admitted: BTreeMap<String, String>,
}

/// A certificate issued to a worker.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) serial: String,
    pub(super) family: String,
    pub(super) expires: SystemTime,
}

/// Why a worker may not join.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(
        "the name `{name}` belongs to another worker, whose certificate is valid until {until}; give this one another `--name`, or revoke \
         the other one: `kiln farm revoke --serial {serial}`"
    )]
    NameInUse { name: String, until: humantime::Rfc3339Timestamp, serial: String },
    #[error("the join token `{token}` has no uses left ({uses}); create another with `kiln farm token NAME --join`")]
    UsedUp { token: String, uses: u32 },
    #[error(transparent)]
    File(#[from] Error),
}

/// The record. One call at a time reads and writes it, and may block for that.
#[derive(Debug)]
pub(super) struct Joined {
    place: Place,
    file: File,
}

/// Where the record is.
#[derive(Debug)]
enum Place {
    /// In a file of this coordinator alone.
    Own(PathBuf),
    /// Where all coordinators of the farm find it.
    Common(Arc<dyn Ledger>, Handle),
}

impl Joined {
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| wrong(&path, error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => File::default(),
            Err(error) => return Err(wrong(&path, error)),
        };
        Ok(Self { place: Place::Own(path), file })
    }

    /// The record that all coordinators of the farm have. Must be called within a runtime, and the rest outside of one.
    pub(super) fn common(ledger: Arc<dyn Ledger>) -> Self {
        Self { place: Place::Common(ledger, Handle::current()), file: File::default() }
    }

    /// Looks at what other coordinators have recorded.
    fn look(&mut self) -> Result<(), Error> {
        let Place::Common(ledger, runtime) = &self.place else { return Ok(()) };
        let text = runtime.block_on(ledger.read(ledger::JOINED)).map_err(|reason| Error::Ledger { reason })?;
        self.file =
            toml::from_str(&text.unwrap_or_default()).map_err(|error| Error::Ledger { reason: error.to_string() })?;
        Ok(())
    }

    /// Admits the worker with this key under a name. This uses the token once, unless the same worker joined with it
    /// before: the answer may have been lost.
    pub(super) fn admit(
        &mut self,
        name: &str,
        key: &str,
        (token, sha256, uses): (&str, &str, Option<u32>),
        revoked: &revoked::File,
        now: SystemTime,
    ) -> Result<(), Refused> {
        self.look()?;
        let mut file = self.file.clone();
        file.workers.retain(|worker| worker.expires > now);
        let is_out = |worker: &&Worker| revoked.has_serial(&worker.serial) || revoked.has_serial(&worker.family);
        let named = || file.workers.iter().filter(|worker| worker.name == name);
        if let Some(other) = named().find(|worker| worker.key != key && !is_out(worker)) {
            return Err(Refused::NameInUse {
                name: name.to_owned(),
                until: humantime::format_rfc3339_seconds(other.expires),
                serial: other.serial.clone(),
            });
        }
        if named().any(|worker| worker.key == key) || file.admitted.get(key).is_some_and(|admitted| admitted == name) {
            return Ok(());
        }
        let Some(uses) = uses else { return Ok(()) };
        let used = file.used.entry(sha256.to_owned()).or_default();
        if *used >= uses {
            return Err(Refused::UsedUp { token: token.to_owned(), uses });
        }
        *used += 1;
        file.admitted.insert(key.to_owned(), name.to_owned());
        Ok(self.write(file)?)
    }

    /// Records a worker's certificate.
    pub(super) fn note(&mut self, issued: Issued, now: SystemTime) -> Result<(), Error> {
        self.look()?;
        let Issued { name, key, serial, family, expires } = issued;
        let mut file = self.file.clone();
        file.workers.retain(|worker| worker.expires > now);
        file.admitted.remove(&key);
        file.workers.push(Worker { name, key, serial, family, expires });
        self.write(file)
    }

    /// Serial number of the first certificate in the line of renewals of this one.
    pub(super) fn family(&mut self, serial: &str) -> Option<String> {
        if let Err(error) = self.look() {
            tracing::warn!(%error, "cannot tell to which certificates this one was renewed");
        }
        let is_it = |worker: &&Worker| revoked::normal(&worker.serial) == revoked::normal(serial);
        self.file.workers.iter().find(is_it).map(|worker| worker.family.clone())
    }

    fn write(&mut self, file: File) -> Result<(), Error> {
        let path = match &self.place {
            Place::Own(path) => path,
            Place::Common(ledger, runtime) => {
                let reason = |error: &dyn std::fmt::Display| Error::Ledger { reason: error.to_string() };
                let text = toml::to_string(&file).map_err(|error| reason(&error))?;
                runtime.block_on(ledger.write(ledger::JOINED, text)).map_err(|error| reason(&error))?;
                self.file = file;
                return Ok(());
            }
        };
        let text = toml::to_string(&file).map_err(|error| wrong(path, error))?;
        let written = (|| {
            let directory = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(directory)?;
            let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
            temporary.write_all(text.as_bytes())?;
            temporary.as_file().sync_all()?;
            temporary.persist(path).map(drop).map_err(|error| error.error)
        })();
        written.map_err(|error: std::io::Error| wrong(path, error))?;
        self.file = file;
        Ok(())
    }
}

fn wrong(path: &Path, reason: impl ToString) -> Error {
    Error::File { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_is_used_as_often_as_it_says_and_a_name_belongs_to_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("joined.toml");
        let now = SystemTime::now();
        let mut revoked = revoked::File::default();
        let open = || Joined::open(path.clone()).unwrap();
        let admit = |name: &str, key: &str, revoked: &revoked::File| {
            open().admit(name, key, ("workers", "hash", Some(2)), revoked, now).map_err(|refused| refused.to_string())
        };
        let issued = |name: &str, key: &str, serial: &str| Issued {
            name: name.into(),
            key: key.into(),
            serial: serial.into(),
            family: "0a".into(),
            expires: now + Duration::from_secs(60),
        };
        admit("one", "k1", &revoked).unwrap();
        open().note(issued("one", "k1", "0a"), now).unwrap();
        // Its answer was lost: it asks again, which does not count as a second use.
        admit("one", "k1", &revoked).unwrap();
        let refused = admit("one", "k2", &revoked).unwrap_err();
        assert!(refused.contains("belongs to another worker") && refused.contains("--serial 0a"), "{refused}");
        admit("two", "k2", &revoked).unwrap();
        assert!(admit("three", "k3", &revoked).unwrap_err().contains("has no uses left (2)"));
        assert_eq!(open().family("0A").as_deref(), Some("0a"));
        revoked.add_serial("0a");
        let mut more = open();
        more.admit("one", "k9", ("workers", "other", None), &revoked, now)
            .expect("expected a revoked one's name to be free");
        let later = now + Duration::from_secs(61);
        more.note(issued("four", "k4", "0b"), later).unwrap();
        assert_eq!(open().file.workers.len(), 1, "expected what has expired to be forgotten");
    }
}
