//! Digests: a function, 32 bytes of hash, and a size.
//!
//! Invariant: a [`Digest`] from the wire has a lower-case hex hash of the right length and a size that is not negative.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

use crate::reapi;

/// Length of a hash in hex.
const HEX_BYTES: usize = 64;

/// Why a digest is invalid.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Error {
    #[error("hash `{hash}` is not 64 lower-case hex digits")]
    Hash { hash: String },
    #[error("size {size} of blob `{hash}` is negative")]
    Size { hash: String, size: i64 },
    #[error("digest function `{name}` is not supported; use SHA256 or BLAKE3")]
    Function { name: String },
    #[error("a digest is missing in the message")]
    Missing,
    #[error("invalid digest `{text}`; expected `HASH/SIZE`")]
    Syntax { text: String },
}

/// The supported digest functions. Both have 32-byte hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum DigestFunction {
    /// SHA-256, FIPS 180-4.
    #[default]
    Sha256,
    /// BLAKE3 with 256 bits.
    Blake3,
}

impl DigestFunction {
    /// From REAPI's number; unset means SHA-256 (no other supported function has a hash of 64 digits without being
    /// named).
    pub fn from_wire(value: i32) -> Result<Self, Error> {
        use reapi::digest_function::Value;
        match Value::try_from(value) {
            Ok(Value::Unknown | Value::Sha256) => Ok(Self::Sha256),
            Ok(Value::Blake3) => Ok(Self::Blake3),
            Ok(other) => Err(Error::Function { name: other.as_str_name().to_owned() }),
            Err(_) => Err(Error::Function { name: value.to_string() }),
        }
    }

    /// REAPI's number.
    pub fn to_wire(self) -> i32 {
        use reapi::digest_function::Value;
        match self {
            Self::Sha256 => Value::Sha256 as i32,
            Self::Blake3 => Value::Blake3 as i32,
        }
    }

    /// The function's segment in resource names, if it has one.
    pub fn segment(self) -> Option<&'static str> {
        match self {
            Self::Sha256 => None,
            Self::Blake3 => Some("blake3"),
        }
    }

    /// Lower-case name, as in paths and provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }

    /// A fresh hasher.
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher { size: 0, state: State::Sha256(sha2::Sha256::new()) },
            Self::Blake3 => Hasher { size: 0, state: State::Blake3(Box::new(blake3::Hasher::new())) },
        }
    }

    /// The digest of `data`.
    pub fn digest(self, data: &[u8]) -> Digest {
        let hash = match self {
            Self::Sha256 => sha2::Sha256::digest(data).into(),
            Self::Blake3 => *blake3::hash(data).as_bytes(),
        };
        Digest { function: self, hash, size: data.len() as u64 }
    }

    /// The digest of a message in its canonical encoding.
    pub fn digest_message(self, message: &impl prost::Message) -> Digest {
        self.digest(&message.encode_to_vec())
    }
}

/// Hashes a stream of bytes.
#[derive(Clone)]
pub struct Hasher {
    size: u64,
    state: State,
}

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.size = self.size.saturating_add(data.len() as u64);
        match &mut self.state {
            State::Sha256(state) => state.update(data),
            State::Blake3(state) => {
                state.update(data);
            }
        }
    }

    /// Number of bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Digest {
        let (function, hash) = match self.state {
            State::Sha256(state) => (DigestFunction::Sha256, state.finalize().into()),
            State::Blake3(state) => (DigestFunction::Blake3, *state.finalize().as_bytes()),
        };
        Digest { function, hash, size: self.size }
    }
}

/// Identifies a blob by its content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    /// The hash function.
    pub function: DigestFunction,
    /// The hash.
    pub hash: [u8; 32],
    /// Size in bytes.
    pub size: u64,
}

impl Digest {
    /// The empty blob's digest.
    pub fn empty(function: DigestFunction) -> Self {
        function.digest(&[])
    }

    /// Whether this is the empty blob's digest.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Lower-case hex of the hash.
    pub fn hex(&self) -> String {
        let mut text = vec![0; HEX_BYTES];
        // It fits. `hex::encode` makes each letter a character first, which takes eight times as long.
        let _ = hex::encode_to_slice(self.hash, &mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    /// From hex and size.
    pub fn new(function: DigestFunction, hash: &str, size: u64) -> Result<Self, Error> {
        let bad = || Error::Hash { hash: hash.chars().take(80).collect() };
        if hash.len() != HEX_BYTES || hash.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(hash, &mut bytes).map_err(|_| bad())?;
        Ok(Self { function, hash: bytes, size })
    }

    /// From REAPI's message.
    pub fn from_wire(function: DigestFunction, digest: &reapi::Digest) -> Result<Self, Error> {
        let size = u64::try_from(digest.size_bytes)
            .map_err(|_| Error::Size { hash: digest.hash.chars().take(80).collect(), size: digest.size_bytes })?;
        Self::new(function, &digest.hash, size)
    }

    /// From a field that must be set.
    pub fn required(function: DigestFunction, digest: Option<&reapi::Digest>) -> Result<Self, Error> {
        Self::from_wire(function, digest.ok_or(Error::Missing)?)
    }

    /// REAPI's message.
    pub fn to_wire(&self) -> reapi::Digest {
        reapi::Digest { hash: self.hex(), size_bytes: self.size as i64 }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(segment) = self.function.segment() {
            write!(f, "{segment}/")?;
        }
        write!(f, "{}/{}", self.hex(), self.size)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let syntax = || Error::Syntax { text: text.chars().take(100).collect() };
        let (function, rest) = match text.strip_prefix("blake3/") {
            Some(rest) => (DigestFunction::Blake3, rest),
            None => (DigestFunction::Sha256, text),
        };
        let (hash, size) = rest.split_once('/').ok_or_else(syntax)?;
        Self::new(function, hash, size.parse().map_err(|_| syntax())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        assert_eq!(
            DigestFunction::Sha256.digest(b"abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            DigestFunction::Blake3.digest(b"").hex(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn upper_case_and_short_hashes_are_refused() {
        let upper = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert!(Digest::new(DigestFunction::Sha256, upper, 3).is_err());
        assert!(Digest::new(DigestFunction::Sha256, "abcd", 3).is_err());
        let negative = reapi::Digest { hash: upper.to_lowercase(), size_bytes: -1 };
        assert!(Digest::from_wire(DigestFunction::Sha256, &negative).is_err());
    }

    proptest::proptest! {
        #[test]
        fn text_form_round_trips(data: Vec<u8>, blake: bool) {
            let function = if blake { DigestFunction::Blake3 } else { DigestFunction::Sha256 };
            let digest = function.digest(&data);
            proptest::prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            proptest::prop_assert_eq!(Digest::from_wire(function, &digest.to_wire()).unwrap(), digest);
        }

        #[test]
        fn hashing_in_pieces_is_hashing_at_once(pieces: Vec<Vec<u8>>, blake: bool) {
            let function = if blake { DigestFunction::Blake3 } else { DigestFunction::Sha256 };
            let mut hasher = function.hasher();
            pieces.iter().for_each(|piece| hasher.update(piece));
            proptest::prop_assert_eq!(hasher.finish(), function.digest(&pieces.concat()));
        }
    }
}
