//! Content-defined chunking: cuts a large blob so that a small change leaves most of its chunks unchanged.
//!
//! FastCDC after Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems"
//! (IEEE TPDS 2020), with the parameters that REAPI recommends: clients and servers that follow it find the same cuts.
//! Invariant: the concatenation of the chunks is the blob; equal blobs have equal chunks, however their bytes arrived.

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::{FastCDC, Normalization};

/// Average length of a chunk, in bytes.
pub const AVERAGE_BYTES: u64 = 512 * 1024;
/// Minimum length of a chunk except the last, in bytes.
pub const MIN_BYTES: u64 = AVERAGE_BYTES / 4;
/// Maximum length of a chunk, in bytes. A blob up to this size is a single chunk.
pub const MAX_BYTES: u64 = AVERAGE_BYTES * 4;
/// Seed of the gear table.
pub const SEED: u32 = 0;

/// Cuts a stream of bytes into chunks. Memory is bounded by twice [`MAX_BYTES`] and the largest piece pushed.
#[derive(Debug, Default)]
pub struct Chunker {
    pending: BytesMut,
}

impl Chunker {
    /// A chunker for a new blob.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn push(&mut self, data: &[u8]) {
        self.pending.extend_from_slice(data);
    }

    /// The next chunk whose end is already known; call it until it returns `None`.
    pub fn next_whole(&mut self) -> Option<Bytes> {
        if self.pending.len() < MAX_BYTES as usize { None } else { Some(self.cut()) }
    }

    /// The next of the remaining chunks at the end of the blob; call it until it returns `None`.
    pub fn next_last(&mut self) -> Option<Bytes> {
        if self.pending.is_empty() { None } else { Some(self.cut()) }
    }

    /// The bytes that were pushed but not cut: the whole blob if [`next_whole`](Self::next_whole) was never called.
    pub fn rest(&mut self) -> Bytes {
        self.pending.split().freeze()
    }

    fn cut(&mut self) -> Bytes {
        let window = self.pending.chunks(MAX_BYTES as usize).next().unwrap_or_default();
        let (min, average, max) = (MIN_BYTES as usize, AVERAGE_BYTES as usize, MAX_BYTES as usize);
        let cdc = FastCDC::with_level_and_seed(window, min, average, max, Normalization::Level2, u64::from(SEED));
        let (_, end) = cdc.cut(0, window.len());
        self.pending.split_to(end).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes without a pattern, from a small generator (splitmix64), so that a test can name many by few numbers.
    fn noise(mut seed: u64, length: usize) -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
    }

    fn chunks(data: &[u8], piece: usize) -> Vec<Bytes> {
        let mut chunker = Chunker::new();
        let mut found = Vec::new();
        for piece in data.chunks(piece.max(1)) {
            chunker.push(piece);
            while let Some(chunk) = chunker.next_whole() {
                found.push(chunk);
            }
        }
        while let Some(chunk) = chunker.next_last() {
            found.push(chunk);
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn chunks_are_the_blob_and_do_not_depend_on_how_it_came_in(seed: u64, length in 0..9_000_000_usize, piece in 1_000..3_000_000_usize) {
            let data = noise(seed, length);
            let found = chunks(&data, piece);
            prop_assert_eq!(&found, &chunks(&data, usize::MAX));
            prop_assert_eq!(found.concat(), data);
            let all_but_last = found.len().saturating_sub(1);
            prop_assert!(found[..all_but_last].iter().all(|chunk| chunk.len() as u64 >= MIN_BYTES));
            prop_assert!(found.iter().all(|chunk| chunk.len() as u64 <= MAX_BYTES));
        }
    }

    #[test]
    fn the_cuts_are_those_of_the_whole_blob_algorithm() {
        let data = noise(7, 20_000_000);
        let (min, average, max) = (MIN_BYTES as usize, AVERAGE_BYTES as usize, MAX_BYTES as usize);
        let expected: Vec<usize> = FastCDC::with_level_and_seed(&data, min, average, max, Normalization::Level2, 0)
            .map(|chunk| chunk.length)
            .collect();
        assert_eq!(chunks(&data, 1 << 20).iter().map(Bytes::len).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_inserted_byte_changes_few_chunks() {
        let before = noise(1, 40_000_000);
        let mut after = before.clone();
        after.insert(20_000_000, 42);
        let known: std::collections::HashSet<Bytes> = chunks(&before, 1 << 20).into_iter().collect();
        let after = chunks(&after, 1 << 20);
        let changed = after.iter().filter(|chunk| !known.contains(*chunk)).count();
        assert!(changed <= 3, "expected at most 3 of {} chunks to change, found {changed}", after.len());
    }
}
