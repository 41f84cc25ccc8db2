//! What a farm signs its statements with.
//!
//! A private key is in a file that only the coordinator reads, or behind a command, such as a client of a key management service. It is
//! never part of an action, a blob, an answer or a log.
//!
//! Invariant: what leaves [`Signer::sign`] was verified with the public key that the farm publishes.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod command;
mod error;
mod file;
mod options;

use std::sync::Arc;
use std::time::SystemTime;

use kiln_attest::{Envelope, Key, Keys, PAYLOAD_TYPE, Signature, State, pae};
use kiln_state::{Current, Watched};

pub use error::Error;
pub use file::rotate;
pub use options::Options;

/// A signed statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The Sigstore bundle, JSON.
    pub bundle: Vec<u8>,
    /// The id of the key.
    pub key: String,
}

/// Signs for a farm. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signer(Current<Source>);

/// Where signatures come from.
#[derive(Debug)]
enum Source {
    File(file::Contents),
    Command { command: Arc<command::Command>, keys: Keys },
}

impl Source {
    fn published(&self) -> Keys {
        match self {
            Self::File(contents) => contents.published(),
            Self::Command { keys, .. } => keys.clone(),
        }
    }
}

impl Signer {
    /// Opens what the options name; creates the key's file if it does not exist. It is read again when it changes.
    ///
    /// # Errors
    /// If a file cannot be read or written, others could read the private key, or a command has no public key.
    pub fn open(options: &Options, default: &std::path::Path) -> Result<Self, Error> {
        if let Some(command) = options.command()? {
            let (command, path) = (Arc::new(command.0), command.1);
            let watched = Watched::begin(vec![path.clone()]);
            let read = move || Ok(Source::Command { command: command.clone(), keys: file::public(&path)? });
            return Self::following(watched, read);
        }
        let path = options.signing_key.clone().unwrap_or_else(|| default.to_owned());
        if !path.exists() {
            file::create(&path)?;
        }
        let watched = Watched::begin(vec![path.clone()]);
        Self::following(watched, move || file::read(&path).map(Source::File))
    }

    /// What is wrong with the files of these options. Nothing is created, and nothing is followed.
    ///
    /// # Errors
    /// As [`Signer::open`].
    pub fn check(options: &Options, default: &std::path::Path) -> Result<(), Error> {
        if let Some((_, path)) = options.command()? {
            return file::public(&path).map(drop);
        }
        let path = options.signing_key.as_deref().unwrap_or(default);
        if path.exists() { file::read(path).map(drop) } else { Ok(()) }
    }

    fn following(
        watched: Watched,
        read: impl Fn() -> Result<Source, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let current = Current::new(read()?);
        let kept = current.clone();
        tokio::spawn(watched.follow(move || {
            kept.set(read()?);
            tracing::info!("the farm's signing keys were reloaded");
            Ok::<_, Error>(true)
        }));
        Ok(Self(current))
    }

    /// The public keys, those that do not sign any more included.
    pub fn published(&self) -> Keys {
        self.0.get().published()
    }

    /// An id of the farm that a rotation does not change: that of its oldest key, the last in the file.
    pub fn farm(&self) -> String {
        let keys = self.published();
        keys.iter().last().map(|key| key.public.id().to_owned()).unwrap_or_default()
    }

    /// Signs a statement, an in-toto statement in JSON.
    ///
    /// # Errors
    /// If no key is valid now, or the command fails.
    pub async fn sign(&self, statement: Vec<u8>) -> Result<Signed, Error> {
        let source = self.0.get();
        let message = pae(PAYLOAD_TYPE, &statement);
        let (key, bytes) = match &*source {
            Source::File(contents) => {
                let secret = contents.signing(SystemTime::now())?;
                (&secret.key, secret.private.sign(&message).map_err(Error::Sign)?)
            }
            Source::Command { command, keys } => {
                let key = valid(keys.iter(), SystemTime::now()).ok_or(Error::NoneValid)?;
                (key, command.sign(&message, &key.public).await?)
            }
        };
        let id = key.public.id().to_owned();
        if !key.public.verifies(&message, &bytes) {
            return Err(Error::Sign(kiln_attest::Error::Forged { key: id }));
        }
        let envelope = Envelope::new(statement, vec![Signature { key: id.clone(), bytes }]);
        Ok(Signed { bundle: kiln_attest::bundle(&envelope).map_err(Error::Sign)?, key: id })
    }
}

/// The first key that is valid.
fn valid<'a>(mut keys: impl Iterator<Item = &'a Key>, now: SystemTime) -> Option<&'a Key> {
    keys.find(|key| key.state(now) == State::Valid)
}

#[cfg(test)]
mod tests;
