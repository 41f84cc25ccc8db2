//! One entry of a pack's list: which blob lies where.
//!
//! Little endian: hash (32 bytes), size (4), offset (4), function (1), zeros (3), check (4), zeros (8), last use (8). The
//! check is over everything before it. The last use is rewritten in place; 0 says that the blob was removed.

use kiln_proto::digest::{Digest, DigestFunction};

use crate::Stamp;

/// Bytes of a record.
pub(super) const BYTES: usize = 64;
/// Offset of the last use in a record, in bytes.
pub(super) const USED_AT: u64 = 56;

const CHECKED: usize = 44;

/// A blob in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) digest: Digest,
    /// Where its bytes begin in the pack.
    pub(super) at: u32,
    /// Its last use; 0 if it was removed.
    pub(super) used: Stamp,
}

/// Where a record begins in its list.
pub(super) fn place(record: u32) -> u64 {
    u64::from(record).saturating_mul(BYTES as u64)
}

fn check(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = DigestFunction::Blake3.digest(bytes).hash;
    [a, b, c, d]
}

impl Record {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.digest.hash);
        // Only small blobs are packed.
        out.extend_from_slice(&(self.digest.size as u32).to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.digest.function == DigestFunction::Blake3), 0, 0, 0]);
        let check = check(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&check);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.used.to_le_bytes());
    }

    /// `None` if the record is damaged.
    pub(super) fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let (checked, rest) = bytes.split_at(CHECKED);
        let (found, rest) = rest.split_first_chunk()?;
        if *found != check(checked) {
            return None;
        }
        let (hash, checked) = checked.split_first_chunk()?;
        let (size, checked) = checked.split_first_chunk()?;
        let (at, checked) = checked.split_first_chunk()?;
        let function = match checked.first()? {
            0 => DigestFunction::Sha256,
            1 => DigestFunction::Blake3,
            _ => return None,
        };
        let digest = Digest { function, hash: *hash, size: u32::from_le_bytes(*size).into() };
        let used = Stamp::from_le_bytes(*rest.get(8..)?.first_chunk()?);
        Some(Self { digest, at: u32::from_le_bytes(*at), used })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written_and_a_damaged_one_is_not(
            data: Vec<u8>, blake: bool, at: u32, used: u64, place in 0..CHECKED + 4, flip in 1..=u8::MAX
        ) {
            let function = if blake { DigestFunction::Blake3 } else { DigestFunction::Sha256 };
            let record = Record { digest: function.digest(&data), at, used };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let mut bytes: [u8; BYTES] = bytes.try_into().unwrap();
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            bytes[place] ^= flip;
            prop_assert_eq!(Record::decode(&bytes), None);
        }
    }
}
