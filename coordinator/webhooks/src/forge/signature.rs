//! Checks the sender of a body, in constant time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use sha2::{Digest, Sha256};

/// Whether `tag`, in hex, is the HMAC-SHA256 of the body with the secret (RFC 2104).
pub(super) fn is_hex_hmac(tag: &str, body: &[u8], secret: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex::decode(tag).is_ok_and(|tag| hmac::verify(&key, body, &tag).is_ok())
}

/// Whether `tag`, in base64, is the HMAC-SHA256 of the concatenated parts with the key.
pub(super) fn is_base64_hmac(tag: &str, parts: &[&[u8]], key: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    STANDARD.decode(tag).is_ok_and(|tag| hmac::verify(&key, &parts.concat(), &tag).is_ok())
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    Sha256::digest(one.as_bytes()) == Sha256::digest(other.as_bytes())
}
