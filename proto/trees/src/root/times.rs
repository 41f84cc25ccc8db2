//! When the nodes of a root were last modified: kept beside its tree, and part of no digest of it.

use std::collections::BTreeMap;

/// When a node was last modified, since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds after them, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// When a node that has no time was modified: in the root that a command sees and in the layer that it becomes alike, because
    /// compilers record the times of what they read.
    pub const UNDATED: Self = Self { seconds: 946_684_800, nanos: 0 };
}

/// The times of nodes, by path below the root, names joined by `/`; the root itself is the empty path.
///
/// As a blob they are short: sorted by path, each path without what it has in common with the one before, each second as the
/// difference to the one before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Times(pub BTreeMap<Vec<u8>, Time>);

/// A blob that does not hold times.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("the blob does not hold the times of a root")]
pub struct InvalidTimes;

impl Times {
    /// The times as a blob.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.0.len().saturating_mul(16));
        let (mut before, mut seconds): (&[u8], i64) = (&[], 0);
        for (path, time) in &self.0 {
            let common = before.iter().zip(path).take_while(|(a, b)| a == b).count();
            varint(&mut data, common as u64);
            let own = path.get(common..).unwrap_or_default();
            varint(&mut data, own.len() as u64);
            data.extend_from_slice(own);
            let step = time.seconds.wrapping_sub(seconds);
            varint(&mut data, ((step << 1) ^ (step >> 63)) as u64);
            varint(&mut data, u64::from(time.nanos));
            (before, seconds) = (path, time.seconds);
        }
        data
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// Where it was not made by [`encode`](Self::encode).
    pub fn decode(mut data: &[u8]) -> Result<Self, InvalidTimes> {
        let mut times = Self::default();
        let (mut path, mut seconds): (Vec<u8>, i64) = (Vec::new(), 0);
        while !data.is_empty() {
            let common = usize::try_from(take_varint(&mut data)?).map_err(|_| InvalidTimes)?;
            let rest = usize::try_from(take_varint(&mut data)?).map_err(|_| InvalidTimes)?;
            if common > path.len() {
                return Err(InvalidTimes);
            }
            path.truncate(common);
            let (own, after) = data.split_at_checked(rest).ok_or(InvalidTimes)?;
            path.extend_from_slice(own);
            data = after;
            let step = take_varint(&mut data)?;
            seconds = seconds.wrapping_add((step >> 1) as i64 ^ ((step & 1) as i64).wrapping_neg());
            let nanos = u32::try_from(take_varint(&mut data)?).ok().filter(|nanos| *nanos < 1_000_000_000);
            let time = Time { seconds, nanos: nanos.ok_or(InvalidTimes)? };
            // Sorted, and none twice.
            if times.0.last_key_value().is_some_and(|(last, _)| *last >= path) {
                return Err(InvalidTimes);
            }
            times.0.insert(path.clone(), time);
        }
        Ok(times)
    }
}

fn varint(data: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        data.push(value as u8 | 0x80);
        value >>= 7;
    }
    data.push(value as u8);
}

fn take_varint(data: &mut &[u8]) -> Result<u64, InvalidTimes> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = data.split_first().ok_or(InvalidTimes)?;
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(InvalidTimes)
}
