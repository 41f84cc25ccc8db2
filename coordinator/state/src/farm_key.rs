//! The farm's key: a MAC with it identifies what the coordinator issued or recorded.
//!
//! The file holds one key per line, as 64 hex digits. The first one seals, all of them verify, so a new key can be put
//! first while data sealed with the old one is still in use. Coordinators that share a cache share the file.
//! Sources: RFC 2104 (HMAC), with SHA-256; NIST SP 800-38D (AES-256-GCM) for secrets.
//! Invariant: a MAC for one purpose is invalid for any other.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use tokio::sync::watch;

use crate::watched::Watched;

/// Length of a key and of a MAC, in bytes.
pub const BYTES: usize = 32;
/// Rights that nobody should have but the owner and its group.
const OTHERS: u32 = 0o007;
/// Keys that a rotation keeps in the file: the new one and the previous one.
const KEPT: usize = 2;

/// The file with the farm's key is not usable.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be used: {reason}", .path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What a MAC is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A lease and what it allows its worker.
    Lease,
    /// An entry of a cache that others may write to.
    Cache,
    /// The value of a secret, as a part of an action's key.
    Secret,
    /// The caller of a call that one coordinator passes on to another.
    Relay,
    /// What the coordinators of a farm keep where others may write: their journal, and who they are.
    Journal,
    /// What the result of a lease names.
    Result,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Lease => b"kiln lease\0",
            Self::Cache => b"kiln cache\0",
            Self::Secret => b"kiln secret\0",
            Self::Relay => b"kiln relay\0",
            Self::Journal => b"kiln journal\0",
            Self::Result => b"kiln result\0",
        }
    }
}

#[derive(Debug)]
struct Keys(Vec<hmac::Key>);

/// The farm's key, as currently in its file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FarmKey(watch::Receiver<Arc<Keys>>);

impl FarmKey {
    /// Reads the file, and creates it if it does not exist. It is read again when it changes.
    ///
    /// # Errors
    /// If the file cannot be read or written, or does not contain keys.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            create(path)?;
        }
        let paths = vec![path.to_owned()];
        let watched = Watched::begin(paths);
        let (sender, receiver) = watch::channel(Arc::new(read(path)?));
        if std::fs::metadata(path).is_ok_and(|found| found.mode() & OTHERS != 0) {
            tracing::warn!(
                file = %path.display(),
                "every user of this machine can read the farm's key, and so write results that the farm believes: `chmod 600` it"
            );
        }
        let path = path.to_owned();
        tokio::spawn(watched.follow(move || {
            sender.send_replace(Arc::new(read(&path)?));
            tracing::info!("the farm's key was reloaded");
            Ok::<_, Error>(!sender.is_closed())
        }));
        Ok(Self(receiver))
    }

    /// Whether a file has keys. Nothing is created, and nothing is followed.
    ///
    /// # Errors
    /// If the file cannot be read, or does not contain keys.
    pub fn check(path: &Path) -> Result<(), Error> {
        parse(path).map(drop)
    }

    /// A key that exists only in this process.
    pub fn ephemeral() -> Self {
        Self::of(&rand::random())
    }

    /// This key, which is not stored in a file.
    pub fn of(bytes: &[u8; BYTES]) -> Self {
        let (_, receiver) = watch::channel(Arc::new(Keys(vec![key(bytes)])));
        Self(receiver)
    }

    /// A MAC over `parts`, in this order and with their boundaries.
    pub fn seal(&self, purpose: Purpose, parts: &[&[u8]]) -> Vec<u8> {
        let keys = self.0.borrow().clone();
        keys.0.first().map(|key| mac(key, purpose, parts).as_ref().to_vec()).unwrap_or_default()
    }

    /// Encrypts a secret, so that only a farm with this key reads it, and only for this purpose and these parts.
    pub fn wrap(&self, purpose: Purpose, parts: &[&[u8]], secret: &[u8]) -> Option<Vec<u8>> {
        let keys = self.0.borrow().clone();
        let nonce: [u8; aead::NONCE_LEN] = rand::random();
        let mut wrapped = secret.to_vec();
        let (key, aad) = (wrapping(keys.0.first()?, purpose)?, Aad::from(message(purpose, parts)));
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut wrapped).ok()?;
        Some([&nonce[..], &wrapped].concat())
    }

    /// A secret that was encrypted with one of the keys, for this purpose and these parts. Whether that was the first one, tells the flag:
    /// otherwise it is time to encrypt it again.
    pub fn unwrap(&self, purpose: Purpose, parts: &[&[u8]], wrapped: &[u8]) -> Option<(Vec<u8>, bool)> {
        let keys = self.0.borrow().clone();
        let (nonce, sealed) = wrapped.split_first_chunk::<{ aead::NONCE_LEN }>()?;
        let open = |key: &hmac::Key| {
            let (mut secret, aad) = (sealed.to_vec(), Aad::from(message(purpose, parts)));
            let key = wrapping(key, purpose)?;
            let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut secret).ok()?;
            Some(opened.to_vec())
        };
        keys.0.iter().enumerate().find_map(|(at, key)| Some((open(key)?, at == 0)))
    }

    /// Whether this is the MAC over these parts; constant time for each key.
    pub fn verify(&self, purpose: Purpose, parts: &[&[u8]], tag: &[u8]) -> bool {
        let keys = self.0.borrow().clone();
        let message = message(purpose, parts);
        keys.0.iter().any(|key| hmac::verify(key, &message, tag).is_ok())
    }
}

fn key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

/// What secrets of this purpose are encrypted with.
fn wrapping(key: &hmac::Key, purpose: Purpose) -> Option<LessSafeKey> {
    let derived = mac(key, purpose, &[b"wrap"]);
    Some(LessSafeKey::new(UnboundKey::new(&aead::AES_256_GCM, derived.as_ref()).ok()?))
}

fn message(purpose: Purpose, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = purpose.label().to_vec();
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_le_bytes());
        message.extend_from_slice(part);
    }
    message
}

fn mac(key: &hmac::Key, purpose: Purpose, parts: &[&[u8]]) -> hmac::Tag {
    hmac::sign(key, &message(purpose, parts))
}

fn wrong(path: &Path, reason: impl ToString) -> Error {
    Error { path: path.to_owned(), reason: reason.to_string() }
}

fn parse(path: &Path) -> Result<Vec<[u8; BYTES]>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| wrong(path, error))?;
    let line = |line: &str| {
        let bytes = hex::decode(line).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| wrong(path, "expected one key per line, as 64 hex digits"))
    };
    let keys: Vec<_> =
        text.lines().map(str::trim).filter(|text| !text.is_empty()).map(line).collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(wrong(path, "it contains no key")) } else { Ok(keys) }
}

fn read(path: &Path) -> Result<Keys, Error> {
    Ok(Keys(parse(path)?.iter().map(|bytes| key(bytes)).collect()))
}

fn create(path: &Path) -> Result<(), Error> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| wrong(path, error))?;
    }
    let file = write(path, &[rand::random()])?;
    match file.persist_noclobber(path) {
        // Another coordinator was faster, so its key is used.
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => Err(wrong(path, error.error)),
        _ => Ok(()),
    }
}

/// A file beside `path` that only its owner may read.
fn write(path: &Path, keys: &[[u8; BYTES]]) -> Result<tempfile::NamedTempFile, Error> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = (|| {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        for key in keys {
            writeln!(file, "{}", hex::encode(key))?;
        }
        file.as_file().sync_all()?;
        Ok(file)
    })();
    written.map_err(|error: std::io::Error| wrong(path, error))
}

/// Puts a new key first in the file and keeps the previous first key as the second. Creates the file if it does not
/// exist.
///
/// # Errors
/// If the file cannot be read or written.
pub fn rotate(path: &PathBuf) -> Result<(), Error> {
    if !path.exists() {
        return create(path);
    }
    let mut keys = parse(path)?;
    keys.insert(0, rand::random());
    keys.truncate(KEPT);
    write(path, &keys)?.persist(path).map(drop).map_err(|error| wrong(path, error.error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_mac_holds_for_one_purpose_and_these_parts() {
        let key = FarmKey::ephemeral();
        let tag = key.seal(Purpose::Lease, &[b"ab", b"c"]);
        assert!(key.verify(Purpose::Lease, &[b"ab", b"c"], &tag));
        assert!(!key.verify(Purpose::Cache, &[b"ab", b"c"], &tag));
        assert!(!key.verify(Purpose::Lease, &[b"a", b"bc"], &tag));
        assert!(!FarmKey::ephemeral().verify(Purpose::Lease, &[b"ab", b"c"], &tag));
        assert!(!key.verify(Purpose::Lease, &[b"ab", b"c"], b""));
    }

    #[test]
    fn a_secret_is_read_with_its_key_for_its_purpose_and_unchanged_only() {
        let key = FarmKey::ephemeral();
        let wrapped = key.wrap(Purpose::Journal, &[b"here"], b"secret").unwrap();
        assert!(!wrapped.windows(6).any(|window| window == b"secret"));
        assert_eq!(key.unwrap(Purpose::Journal, &[b"here"], &wrapped), Some((b"secret".to_vec(), true)));
        assert_eq!(key.unwrap(Purpose::Journal, &[b"there"], &wrapped), None);
        assert_eq!(key.unwrap(Purpose::Cache, &[b"here"], &wrapped), None);
        assert_eq!(FarmKey::ephemeral().unwrap(Purpose::Journal, &[b"here"], &wrapped), None);
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert_eq!(key.unwrap(Purpose::Journal, &[b"here"], &changed), None);
        }
        assert_eq!(key.unwrap(Purpose::Journal, &[b"here"], b"short"), None);
    }

    #[tokio::test]
    async fn a_key_survives_a_restart_and_one_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("farm.key");
        let tag = FarmKey::open(&path).unwrap().seal(Purpose::Lease, &[b"x"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(FarmKey::open(&path).unwrap().verify(Purpose::Lease, &[b"x"], &tag));
        let wrapped = FarmKey::open(&path).unwrap().wrap(Purpose::Journal, &[], b"secret").unwrap();
        rotate(&path).unwrap();
        let rotated = FarmKey::open(&path).unwrap();
        assert_eq!(
            rotated.unwrap(Purpose::Journal, &[], &wrapped),
            Some((b"secret".to_vec(), false)),
            "not the first key"
        );
        assert!(rotated.verify(Purpose::Lease, &[b"x"], &tag));
        assert_ne!(rotated.seal(Purpose::Lease, &[b"x"]), tag);
        rotate(&path).unwrap();
        assert!(!FarmKey::open(&path).unwrap().verify(Purpose::Lease, &[b"x"], &tag));
        std::fs::write(&path, "secret").unwrap();
        assert!(FarmKey::open(&path).unwrap_err().to_string().contains("64 hex digits"));
    }
}
