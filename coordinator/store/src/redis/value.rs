//! The format of values: one byte for the encoding, then the data.
//!
//! | first byte | then |
//! | --- | --- |
//! | `0` | the bytes as they are |
//! | `1` | the bytes as one zstd frame (RFC 8878), where that is smaller |
//! | `2` | a blob in parts: each chunk's size (4 bytes, little endian) and hash; only within `4` |
//! | `3` | nothing: a result that was removed, and is not to be taken from elsewhere either |
//! | `4` | an HMAC-SHA256 under the farm's key over the key's name and the rest, then another value |
//!
//! Any other first byte belongs to another version, and the value counts as missing.
//!
//! Invariant: values that no digest verifies are trusted only with the farm's own MAC. So anyone who can write to Redis
//! can only cause misses.

use bytes::Bytes;
use kiln_proto::chunking;
use kiln_proto::digest::Digest;

use kiln_state::farm_key::{self, FarmKey, Purpose};

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const CHUNKS: u8 = 2;
const REMOVED: u8 = 3;
const SEALED: u8 = 4;

/// Shorter values are not compressed.
const COMPRESS_FROM_BYTES: usize = 128;
const LEVEL: i32 = 1;
/// Length of a hash in the list of chunks.
const HASH_BYTES: usize = 32;

/// A decoded value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Whole(Bytes),
    Chunks(Vec<Digest>),
}

/// Encodes bytes as a value, compressed if that is smaller.
pub(super) fn encode(data: &[u8]) -> Vec<u8> {
    if data.len() >= COMPRESS_FROM_BYTES {
        let mut value = vec![0; data.len().saturating_add(1)];
        // The output buffer is as large as the plain bytes: if the result does not fit, it is not compressed.
        if let Some((kind, room)) = value.split_first_mut()
            && let Ok(length) = zstd::bulk::compress_to_buffer(data, room, LEVEL)
            && length.saturating_add(length / 16) < data.len()
        {
            *kind = ZSTD;
            value.truncate(length.saturating_add(1));
            return value;
        }
    }
    [&[PLAIN], data].concat()
}

/// The tombstone of a removed result.
pub(super) fn encode_removed() -> Vec<u8> {
    vec![REMOVED]
}

/// Whether this is the tombstone of a removed result.
pub(super) fn is_removed(value: &[u8]) -> bool {
    value == [REMOVED]
}

/// Seals a value; it can only be opened under the same name.
pub(super) fn seal(key: &FarmKey, name: &str, value: &[u8]) -> Vec<u8> {
    [&[SEALED][..], &key.seal(Purpose::Cache, &[name.as_bytes(), value]), value].concat()
}

/// Opens a value that was sealed under this name; `None` if it was not.
pub(super) fn open(key: &FarmKey, name: &str, sealed: &Bytes) -> Option<Bytes> {
    let (how, rest) = sealed.split_first()?;
    let (mac, value) = rest.split_at_checked(farm_key::BYTES)?;
    let is_ours = *how == SEALED && key.verify(Purpose::Cache, &[name.as_bytes(), value], mac);
    is_ours.then(|| sealed.slice_ref(value))
}

/// Encodes a blob's list of chunks as a value.
pub(super) fn encode_chunks(key: &FarmKey, name: &str, chunks: &[Digest]) -> Vec<u8> {
    let mut value = Vec::new();
    value.push(CHUNKS);
    for chunk in chunks {
        value.extend_from_slice(&(chunk.size as u32).to_le_bytes());
        value.extend_from_slice(&chunk.hash);
    }
    seal(key, name, &value)
}

/// Decodes a value of at most `limit` bytes; `None` if it is damaged, too large or from another version.
pub(super) fn decode(value: Bytes, limit: usize) -> Option<Bytes> {
    let (how, rest) = (*value.first()?, value.slice(1..));
    match how {
        PLAIN => Some(rest),
        ZSTD => zstd::bulk::decompress(&rest, limit).ok().map(Bytes::from),
        _ => None,
    }
}

/// Decodes a blob's value; `None` as for [`decode`]. The bytes are not checked against the digest yet.
pub(super) fn decode_blob(key: &FarmKey, name: &str, value: Bytes, blob: &Digest) -> Option<Value> {
    if *value.first()? != SEALED {
        let limit = usize::try_from(blob.size.min(chunking::MAX_BYTES)).ok()?;
        return decode(value, limit).map(Value::Whole);
    }
    let opened = open(key, name, &value)?;
    let list = opened.strip_prefix(&[CHUNKS])?;
    if list.len() % (4 + HASH_BYTES) != 0 {
        return None;
    }
    let chunk = |entry: &[u8]| {
        let (size, hash) = entry.split_first_chunk::<4>()?;
        let hash = hash.try_into().ok()?;
        Some(Digest { function: blob.function, hash, size: u64::from(u32::from_le_bytes(*size)) })
    };
    let chunks: Vec<Digest> = list.chunks(4 + HASH_BYTES).map(chunk).collect::<Option<_>>()?;
    let whole = chunks.iter().map(|chunk| chunk.size).sum::<u64>() == blob.size;
    whole.then_some(Value::Chunks(chunks))
}

#[cfg(test)]
mod tests {
    use kiln_proto::digest::DigestFunction;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back(data: Vec<u8>, repeated in 0..40_usize) {
            let data = data.repeat(repeated);
            let digest = DigestFunction::Sha256.digest(&data);
            let value = Bytes::from(encode(&data));
            prop_assert!(value.len() <= data.len() + 1);
            prop_assert_eq!(decode_blob(&FarmKey::ephemeral(), "k", value, &digest), Some(Value::Whole(data.into())));
        }

        #[test]
        fn chunks_come_back_and_a_changed_list_does_not(parts in prop::collection::vec(any::<Vec<u8>>(), 1..20), at: usize, change in 1..=255_u8) {
            let chunks: Vec<Digest> = parts.iter().map(|part| DigestFunction::Blake3.digest(part)).collect();
            let blob = DigestFunction::Blake3.digest(&parts.concat());
            let key = FarmKey::ephemeral();
            let mut value = encode_chunks(&key, "k", &chunks);
            prop_assert_eq!(decode_blob(&key, "k", value.clone().into(), &blob), Some(Value::Chunks(chunks)));
            prop_assert_eq!(decode_blob(&key, "other", value.clone().into(), &blob), None);
            prop_assert_eq!(decode_blob(&FarmKey::ephemeral(), "k", value.clone().into(), &blob), None);
            let at = 1 + at % (value.len() - 1);
            value[at] ^= change;
            prop_assert_eq!(decode_blob(&key, "k", value.into(), &blob), None);
        }

        #[test]
        fn any_bytes_are_read_without_panic(value: Vec<u8>, size in 0..100_u64) {
            let blob = Digest { size, ..DigestFunction::Sha256.digest(b"") };
            let _ = decode_blob(&FarmKey::ephemeral(), "k", value.into(), &blob);
        }
    }

    #[test]
    fn what_repeats_is_stored_smaller() {
        assert!(encode(&[7; 10_000]).len() < 200);
    }
}
