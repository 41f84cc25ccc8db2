//! The file with a farm's signing keys.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_attest::{Algorithm, Key, Keys, PrivateKey, Secret, State};

use crate::Error;

/// Rights that nobody may have but the owner and its group: Kubernetes gives the files of a volume to the group of the pod.
const OTHERS: u32 = 0o007;

/// What is in a farm's file.
#[derive(Debug)]
pub(crate) struct Contents {
    secrets: Vec<Secret>,
    /// Keys that have signed before.
    before: Vec<Key>,
}

impl Contents {
    /// Everything that verifies what the farm signed or will sign.
    pub(crate) fn published(&self) -> Keys {
        Keys::new(self.secrets.iter().map(|secret| &secret.key).chain(&self.before).cloned().collect())
    }

    /// What signs at this time.
    pub(crate) fn signing(&self, now: SystemTime) -> Result<&Secret, Error> {
        self.secrets.iter().find(|secret| secret.key.state(now) == State::Valid).ok_or(Error::NoneValid)
    }

    fn text(&self) -> String {
        let secrets: Vec<String> = self.secrets.iter().map(|secret| secret.pem().to_string()).collect();
        let before = Keys::new(self.before.clone()).pem();
        secrets.into_iter().chain(Some(before).filter(|text| !text.is_empty())).collect::<Vec<_>>().join("\n")
    }
}

fn wrong(path: &Path, reason: impl ToString) -> Error {
    Error::File { path: path.to_owned(), reason: reason.to_string() }
}

pub(crate) fn read(path: &Path) -> Result<Contents, Error> {
    let mode = std::fs::metadata(path).map_err(|error| wrong(path, error))?.mode() & 0o777;
    if mode & OTHERS != 0 {
        let reason =
            format!("others can read or replace the private key (mode {mode:03o}): `chmod 600 {}`", path.display());
        return Err(wrong(path, reason));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(path, error))?;
    let (secrets, before) = Keys::parse_secret(&text).map_err(|error| wrong(path, error))?;
    if secrets.is_empty() {
        return Err(wrong(path, "it contains no private key"));
    }
    Ok(Contents { secrets, before })
}

/// Reads a file of public keys.
pub(crate) fn public(path: &Path) -> Result<Keys, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| wrong(path, error))?;
    Keys::parse(&text).map_err(|error| wrong(path, error))
}

fn secret(created: SystemTime) -> Result<Secret, Error> {
    let private = PrivateKey::generate(Algorithm::EcdsaP256).map_err(Error::Sign)?;
    let key = Key { public: private.public().clone(), created: Some(whole(created)), not_after: None };
    Ok(Secret { private, key })
}

/// Files have whole seconds. A key is valid at once, not within a second.
fn whole(at: SystemTime) -> SystemTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since.as_secs())).unwrap_or(at)
}

pub(crate) fn create(path: &Path) -> Result<(), Error> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| wrong(path, error))?;
    }
    let contents = Contents { secrets: vec![secret(SystemTime::now())?], before: Vec::new() };
    match write(path, &contents)?.persist_noclobber(path) {
        // Another coordinator was faster, so its key is used.
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => Err(wrong(path, error.error)),
        _ => Ok(()),
    }
}

/// A file beside `path` that only its owner can read.
fn write(path: &Path, contents: &Contents) -> Result<tempfile::NamedTempFile, Error> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = (|| {
        let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o600)).tempfile_in(directory)?;
        file.write_all(contents.text().as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    })();
    written.map_err(|error: std::io::Error| wrong(path, error))
}

/// Puts a new key first in the file, which is published at once and signs after `overlap`: time for whoever verifies to fetch it. Until then
/// the previous key signs. Keys that do not sign any more keep only their public half. Creates the file if it does not exist.
///
/// # Errors
/// If the file cannot be read or written.
pub fn rotate(path: &Path, overlap: Duration) -> Result<(), Error> {
    if !path.exists() {
        return create(path);
    }
    let mut contents = read(path)?;
    let now = SystemTime::now();
    let from = whole(now.checked_add(overlap).unwrap_or(now));
    let (mut kept, mut retired) = (vec![secret(from)?], Vec::new());
    for mut secret in std::mem::take(&mut contents.secrets) {
        secret.key.not_after = Some(secret.key.not_after.map_or(from, |end| end.min(from)));
        // Another rotation before the first has come into effect: that key has never signed.
        if matches!(secret.key.state(now), State::Early(created) if created >= from) {
            continue;
        }
        if overlap.is_zero() || matches!(secret.key.state(now), State::Retired(_)) {
            retired.push(secret.key);
        } else {
            kept.push(secret);
        }
    }
    retired.append(&mut contents.before);
    let contents = Contents { secrets: kept, before: retired };
    write(path, &contents)?.persist(path).map(drop).map_err(|error| wrong(path, error.error))
}
