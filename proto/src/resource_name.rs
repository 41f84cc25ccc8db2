//! ByteStream resource names.
//!
//! `{instance}/blobs/[{function}/]{hash}/{size}`, `{instance}/compressed-blobs/zstd/[{function}/]{hash}/{size}`
//! for reading, with `uploads/{uuid}/` before `blobs` and anything after the size for writing, as
//! `remote_execution.proto` of REAPI v2 specifies; and `{instance}/logs/{lease}/{stdout|stderr}` for the live output of
//! a running action.
//! Instance names may be empty or have several segments: parsing searches for the keywords.

use std::fmt;

use crate::digest::{Digest, DigestFunction};

/// Maximum length of a name in bytes: the farm keys uploads by their name.
pub const MAX_NAME_BYTES: usize = 4096;

/// Why a resource name is invalid.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid resource name `{name}`; expected `[INSTANCE/]blobs/HASH/SIZE`")]
    Syntax { name: String },
    #[error("a resource name of {bytes} bytes; expected at most {MAX_NAME_BYTES}")]
    TooLong { bytes: usize },
    #[error("compressor `{name}` is not supported; use identity or zstd")]
    Compressor { name: String },
    #[error(transparent)]
    Digest(#[from] crate::digest::Error),
}

/// The encoding of the bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Uncompressed.
    #[default]
    Identity,
    /// One or more zstd frames, RFC 8878.
    Zstd,
}

/// A blob to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadName {
    /// REAPI instance name, without leading or trailing slashes.
    pub instance: String,
    /// The blob.
    pub digest: Digest,
    /// How it is sent.
    pub compression: Compression,
}

/// A blob to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteName {
    /// REAPI instance name, without leading or trailing slashes.
    pub instance: String,
    /// Chosen by the client to identify this upload.
    pub upload: String,
    /// The blob.
    pub digest: Digest,
    /// How it is sent.
    pub compression: Compression,
}

fn segments(name: &str) -> Result<Vec<&str>, Error> {
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::TooLong { bytes: name.len() });
    }
    Ok(name.split('/').collect())
}

fn syntax(name: &str) -> Error {
    Error::Syntax { name: name.chars().take(200).collect() }
}

/// Parses the part after the instance; returns the segments after the size.
fn parse_blob<'a>(segments: &'a [&'a str], name: &str) -> Result<(Digest, Compression, &'a [&'a str]), Error> {
    let (compression, rest) = match segments {
        ["blobs", rest @ ..] => (Compression::Identity, rest),
        ["compressed-blobs", "zstd", rest @ ..] => (Compression::Zstd, rest),
        ["compressed-blobs", "identity", rest @ ..] => (Compression::Identity, rest),
        ["compressed-blobs", other, ..] => return Err(Error::Compressor { name: (*other).to_owned() }),
        _ => return Err(syntax(name)),
    };
    let (function, rest) = match rest {
        ["blake3", rest @ ..] => (DigestFunction::Blake3, rest),
        [function @ ("sha256tree" | "gitsha1"), ..] => {
            return Err(crate::digest::Error::Function { name: (*function).to_owned() }.into());
        }
        _ => (DigestFunction::Sha256, rest),
    };
    match rest {
        [hash, size, rest @ ..] => {
            let size: u64 = size.parse().map_err(|_| syntax(name))?;
            Ok((Digest::new(function, hash, size)?, compression, rest))
        }
        _ => Err(syntax(name)),
    }
}

/// Whether the name of a blob begins with this segment.
fn is_blob(segment: &&str) -> bool {
    matches!(*segment, "blobs" | "compressed-blobs")
}

impl ReadName {
    /// Parses a name.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let segments = segments(name)?;
        let at = segments.iter().position(is_blob).and_then(|at| segments.split_at_checked(at));
        let (instance, blob) = at.ok_or_else(|| syntax(name))?;
        let (digest, compression, _) = parse_blob(blob, name)?;
        Ok(Self { instance: instance.join("/"), digest, compression })
    }
}

impl WriteName {
    /// Parses a name; segments after the size are the client's own and ignored.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let segments = segments(name)?;
        let at = segments
            .windows(3)
            .position(|three| matches!(three, ["uploads", _, blob] if is_blob(blob)))
            .and_then(|at| segments.split_at_checked(at));
        let Some((instance, [_, upload, blob @ ..])) = at else { return Err(syntax(name)) };
        let (digest, compression, _) = parse_blob(blob, name)?;
        Ok(Self { instance: instance.join("/"), upload: (*upload).to_owned(), digest, compression })
    }
}

fn write_blob(f: &mut fmt::Formatter<'_>, digest: &Digest, compression: Compression) -> fmt::Result {
    match compression {
        Compression::Identity => write!(f, "blobs/{digest}"),
        Compression::Zstd => write!(f, "compressed-blobs/zstd/{digest}"),
    }
}

fn write_instance(f: &mut fmt::Formatter<'_>, instance: &str) -> fmt::Result {
    if instance.is_empty() { Ok(()) } else { write!(f, "{instance}/") }
}

impl fmt::Display for ReadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(f, &self.instance)?;
        write_blob(f, &self.digest, self.compression)
    }
}

impl fmt::Display for WriteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(f, &self.instance)?;
        write!(f, "uploads/{}/", self.upload)?;
        write_blob(f, &self.digest, self.compression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instance() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a-z]{1,8}", "[a-z]{1,5}/[a-z0-9]{1,5}/[a-z]{1,5}"]
            .prop_filter("keywords are not instance segments", |name| {
                !name.split('/').any(|s| matches!(s, "blobs" | "uploads" | "compressed-blobs"))
            })
    }

    proptest! {
        #[test]
        fn names_round_trip(instance in instance(), data: Vec<u8>, blake: bool, zstd: bool, trailing in "(/[a-z]{1,5}){0,3}") {
            let function = if blake { DigestFunction::Blake3 } else { DigestFunction::Sha256 };
            let compression = if zstd { Compression::Zstd } else { Compression::Identity };
            let digest = function.digest(&data);
            let read = ReadName { instance: instance.clone(), digest, compression };
            prop_assert_eq!(ReadName::parse(&read.to_string()).unwrap(), read);
            let write = WriteName { instance, upload: "u-1".into(), digest, compression };
            prop_assert_eq!(WriteName::parse(&format!("{write}{trailing}")).unwrap(), write);
        }

        #[test]
        fn any_text_is_parsed_without_panic(text: String) {
            let _ = ReadName::parse(&text);
            let _ = WriteName::parse(&text);
        }
    }

    #[test]
    fn unknown_compressor_is_named() {
        let hash = DigestFunction::Sha256.digest(b"x").hex();
        let error = ReadName::parse(&format!("compressed-blobs/lz5/{hash}/1")).unwrap_err();
        assert_eq!(error, Error::Compressor { name: "lz5".into() });
    }
}
