//! Names of directory entries, as file systems have them: any bytes but `/` and NUL.

use std::fmt;

use crate::shape::MAX_NAME_BYTES;

/// A name that no directory entry can have.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("invalid name `{}` of a directory entry; expected 1 to {MAX_NAME_BYTES} bytes without `/` and NUL that are not `.` or `..`", .0.escape_ascii())]
pub struct InvalidName(pub Vec<u8>);

/// The name of a directory entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// A name of these bytes.
    ///
    /// # Errors
    /// Where no directory entry can have it.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidName> {
        let bytes = bytes.into();
        let lawful = !bytes.is_empty() && bytes.len() <= MAX_NAME_BYTES && !bytes.iter().any(|b| matches!(b, b'/' | 0));
        if lawful && bytes != b"." && bytes != b".." { Ok(Self(bytes.into())) } else { Err(InvalidName(bytes)) }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as text where it is UTF-8.
    pub(super) fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The name as text, whatever its bytes: `%` and what is not UTF-8 as `%XX`.
    pub(super) fn escaped(&self) -> String {
        let mut text = String::with_capacity(self.0.len().saturating_add(8));
        for chunk in self.0.utf8_chunks() {
            text.push_str(&chunk.valid().replace('%', "%25"));
            for byte in chunk.invalid() {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        text
    }

    /// The reverse of [`escaped`](Self::escaped).
    pub(super) fn unescaped(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName(text.as_bytes().to_vec());
        let mut parts = text.split('%');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let (code, rest) = part.split_at_checked(2).ok_or_else(invalid)?;
            let is_hex = code.bytes().all(|byte| byte.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(code, 16).ok().filter(|_| is_hex).ok_or_else(invalid)?);
            bytes.extend_from_slice(rest.as_bytes());
        }
        Self::new(bytes)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{self}`")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl std::str::FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

/// The names of a path below a root. Empty parts and `.` are passed over.
///
/// # Errors
/// Where a part is no name of an entry, such as `..`.
pub fn split(path: &[u8]) -> Result<Vec<Name>, InvalidName> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(Name::new).collect()
}
