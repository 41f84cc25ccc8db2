//! What a cached file is known by: its content and its mode.

use kiln_proto::digest::{Digest, DigestFunction};

/// What a cached file is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) digest: Digest,
    pub(super) mode: u32,
}

impl Key {
    /// A file with the permission bits that its node says. Actions read and replace their inputs as the owner, so the owner may
    /// always do both; and no file of this cache has a set-user-id bit.
    pub(super) fn new(digest: Digest, executable: bool, mode: Option<u32>) -> Self {
        let mode = mode.map_or(if executable { 0o755 } else { 0o644 }, |mode| mode & 0o777 | 0o600);
        Self { digest, mode }
    }

    /// The last part of its name on disk.
    pub(super) fn kind(&self) -> String {
        match self.mode {
            0o644 => "f".to_owned(),
            0o755 => "x".to_owned(),
            other => format!("m{other:o}"),
        }
    }
}

/// The key of a file of this name, where it is one of this cache.
pub(super) fn parse(name: &str) -> Option<Key> {
    let mut parts = name.split('-');
    let function = match parts.next()? {
        "sha256" => DigestFunction::Sha256,
        "blake3" => DigestFunction::Blake3,
        _ => return None,
    };
    let (hash, size, kind) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    let digest = Digest::new(function, hash, size).ok()?;
    let mode = match kind {
        "f" => None,
        "x" => Some(0o755),
        other => Some(u32::from_str_radix(other.strip_prefix('m')?, 8).ok()?),
    };
    let key = Key::new(digest, false, mode);
    (key.kind() == kind).then_some(key)
}
