//! Keys in a file, with the times in which they are valid.
//!
//! The file is PEM (RFC 7468), which allows text between the blocks: lines `created: TIME` and `not-after: TIME` before a block are about
//! its key. A plain key without such lines is always valid. The same format serves the farm's own file, with private keys, and what it
//! publishes.

use std::time::SystemTime;

use crate::key::PublicKey;
use crate::private::PrivateKey;
use crate::{Error, MAX_BYTES};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
/// Maximum number of keys in a file.
const MAX_KEYS: usize = 64;

/// Whether a key is valid at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    Valid,
    /// Not before this time.
    Early(SystemTime),
    /// Not since this time.
    Retired(SystemTime),
}

/// A public key with the time in which it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub public: PublicKey,
    /// It signs from this time on; `None`: always.
    pub created: Option<SystemTime>,
    /// It signs until this time.
    pub not_after: Option<SystemTime>,
}

impl Key {
    /// Whether it is valid at this time.
    pub fn state(&self, at: SystemTime) -> State {
        match (self.created, self.not_after) {
            (Some(created), _) if at < created => State::Early(created),
            (_, Some(end)) if at >= end => State::Retired(end),
            _ => State::Valid,
        }
    }

    fn text(&self) -> String {
        let line = |name: &str, at: Option<SystemTime>| {
            at.map(|at| format!("{name}: {}\n", humantime::format_rfc3339_seconds(at))).unwrap_or_default()
        };
        line("created", self.created) + &line("not-after", self.not_after)
    }
}

/// A private key with the time in which it signs.
#[derive(Debug)]
pub struct Secret {
    /// The key.
    pub private: PrivateKey,
    /// When it signs.
    pub key: Key,
}

/// Public keys that are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

/// A block of a file of keys.
enum Block {
    Public(Key),
    Private(Box<Secret>),
}

impl Keys {
    /// Of these.
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// Reads a file of public keys.
    ///
    /// # Errors
    /// If it has none, or one that is malformed, or a private one: a file for verification has no business with those.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut keys = Vec::new();
        for block in blocks(text)? {
            match block {
                Block::Public(key) => keys.push(key),
                Block::Private(_) => {
                    let reason = "it contains a private key; give the public ones, which `kiln farm keys` prints";
                    return Err(Error::malformed("file of public keys", reason));
                }
            }
        }
        if keys.is_empty() {
            return Err(Error::malformed("file of public keys", "it has no PEM block `PUBLIC KEY`"));
        }
        Ok(Self(keys))
    }

    /// Reads a farm's file: private keys, and public ones that do not sign any more.
    ///
    /// # Errors
    /// If a key is malformed.
    pub fn parse_secret(text: &str) -> Result<(Vec<Secret>, Vec<Key>), Error> {
        let (mut secret, mut public) = (Vec::new(), Vec::new());
        for block in blocks(text)? {
            match block {
                Block::Public(key) => public.push(key),
                Block::Private(one) => secret.push(*one),
            }
        }
        Ok((secret, public))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds others.
    pub fn extend(&mut self, others: Self) {
        for other in others.0 {
            if !self.0.contains(&other) {
                self.0.push(other);
            }
        }
    }

    /// As a file, which [`Keys::parse`] reads.
    pub fn pem(&self) -> String {
        let block = |key: &Key| format!("id: {}\n{}{}", key.public.id(), key.text(), key.public.pem());
        self.0.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

impl Secret {
    /// As a part of a farm's file.
    pub fn pem(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(format!("{}{}", self.key.text(), *self.private.pem()))
    }
}

fn time(name: &str, text: &str) -> Result<SystemTime, Error> {
    humantime::parse_rfc3339_weak(text)
        .map_err(|error| Error::malformed("file of keys", format!("`{name}: {text}` is not a time ({error})")))
}

fn blocks(text: &str) -> Result<Vec<Block>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::Large { what: "file of keys" });
    }
    let mut found = Vec::new();
    let (mut created, mut not_after) = (None, None);
    let mut open: Option<zeroize::Zeroizing<String>> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(block) = &mut open {
            block.push_str(line);
            block.push('\n');
            if line.starts_with(END) {
                found.push(read(block, created.take(), not_after.take())?);
                open = None;
            }
        } else if line.starts_with(BEGIN) {
            open = Some(zeroize::Zeroizing::new(format!("{line}\n")));
        } else if let Some(at) = line.strip_prefix("created:") {
            created = Some(time("created", at.trim())?);
        } else if let Some(at) = line.strip_prefix("not-after:") {
            not_after = Some(time("not-after", at.trim())?);
        }
        if found.len() > MAX_KEYS {
            return Err(Error::malformed("file of keys", format!("it has more than {MAX_KEYS} keys")));
        }
    }
    if open.is_some() {
        return Err(Error::malformed("file of keys", "its last PEM block has no end: it is truncated"));
    }
    Ok(found)
}

fn read(block: &str, created: Option<SystemTime>, not_after: Option<SystemTime>) -> Result<Block, Error> {
    if block.starts_with("-----BEGIN PRIVATE KEY-----") {
        let private = PrivateKey::from_pem(block)?;
        let key = Key { public: private.public().clone(), created, not_after };
        return Ok(Block::Private(Box::new(Secret { private, key })));
    }
    if block.starts_with("-----BEGIN PUBLIC KEY-----") {
        return Ok(Block::Public(Key { public: PublicKey::from_pem(block)?, created, not_after }));
    }
    let label = block.lines().next().unwrap_or_default().to_owned();
    Err(Error::malformed(
        "file of keys",
        format!("unexpected `{label}`; expected `PUBLIC KEY`, or `PRIVATE KEY` (PKCS#8)"),
    ))
}
