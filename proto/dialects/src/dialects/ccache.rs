//! ccache's three layouts of its keys: `subdirs`, `flat` and `bazel`.
//!
//! Keys are 20 bytes: up to 4.12 two digits of hex and 31 of base32hex, later 40 of hex. The layouts `subdirs` and
//! `flat` write one key in two ways, and so share entries.

use crate::refusal::Refusal;

/// Digits of a key that is repeated to the length of a SHA-256.
const BAZEL: usize = 64;

pub(super) fn key(segments: &[&str]) -> Result<String, Refusal> {
    let is_digit = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase();
    match *segments {
        ["ac", key] if key.len() == BAZEL => Ok(format!("bazel/{}", super::lawful(key, super::is_hex)?)),
        [key] => super::lawful(key, is_digit),
        [first, rest] if first.len() == 2 => super::lawful(&format!("{first}{rest}"), is_digit),
        _ => Err(Refusal::Unknown),
    }
}
