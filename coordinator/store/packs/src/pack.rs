//! What one pack takes on the disk: which of its blocks contain blobs that are still there.

use std::ops::Range;

/// Bytes of a block, which a file system frees as a whole.
pub(super) const BLOCK: u64 = 4096;

/// A block that takes no space.
const HOLE: u16 = u16::MAX;

/// The blocks of a pack. Invariant: `held` counts those that are no holes.
#[derive(Debug, Default)]
pub(super) struct Pack {
    /// For each block the number of its blobs, or [`HOLE`]. At most one blob begins at each byte, so the count fits.
    blocks: Vec<u16>,
    held: u64,
    /// Bytes of all blobs that are there.
    pub(super) live_bytes: u64,
    /// Number of blobs that are there.
    pub(super) live: u32,
    /// Number of records, those of removed blobs included.
    pub(super) records: u32,
    /// Where the next batch will be written, as long as blobs are appended.
    pub(super) end: Option<u64>,
}

fn blocks(at: u32, size: u64) -> Range<usize> {
    let end = u64::from(at).saturating_add(size).div_ceil(BLOCK) as usize;
    ((u64::from(at) / BLOCK) as usize).min(end)..end
}

impl Pack {
    /// Counts a blob.
    pub(super) fn add(&mut self, at: u32, size: u64) {
        let range = blocks(at, size);
        if self.blocks.len() < range.end {
            self.blocks.resize(range.end, HOLE);
        }
        for count in self.blocks.get_mut(range).into_iter().flatten() {
            if *count == HOLE {
                *count = 0;
                self.held = self.held.saturating_add(1);
            }
            *count = count.saturating_add(1);
        }
        self.live = self.live.saturating_add(1);
        self.live_bytes = self.live_bytes.saturating_add(size);
    }

    /// Stops counting a blob; returns the range of bytes that nothing needs any more.
    pub(super) fn remove(&mut self, at: u32, size: u64) -> Option<Range<u64>> {
        let end = self.end.unwrap_or(u64::MAX);
        self.live = self.live.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(size);
        let mut free: Option<Range<u64>> = None;
        for block in blocks(at, size) {
            let Some(count) = self.blocks.get_mut(block) else { break };
            *count = count.saturating_sub(1);
            let from = (block as u64).saturating_mul(BLOCK);
            let to = from.saturating_add(BLOCK);
            // The next batch may be written into the last block at any moment.
            if *count == 0 && to <= end {
                free = Some(free.map_or(from, |free| free.start)..to);
            }
        }
        free
    }

    /// Records that this range takes no space any more.
    pub(super) fn punched(&mut self, range: &Range<u64>) {
        let blocks = (range.start / BLOCK) as usize..(range.end / BLOCK) as usize;
        for count in self.blocks.get_mut(blocks).into_iter().flatten() {
            if *count == 0 {
                *count = HOLE;
                self.held = self.held.saturating_sub(1);
            }
        }
    }

    /// Counts blocks that were found on the disk and contain no blob.
    pub(super) fn found(&mut self, blocks: u64) {
        self.held = self.held.max(blocks);
    }

    /// Bytes on the disk beyond those of the blobs.
    pub(super) fn overhead(&self) -> u64 {
        let records = super::record::place(self.records);
        self.held.saturating_mul(BLOCK).saturating_sub(self.live_bytes).saturating_add(records)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_is_free_when_its_last_blob_goes_and_the_last_block_never() {
        let mut pack = Pack { end: Some(10_000), ..Pack::default() };
        pack.add(0, 5_000);
        pack.add(5_000, 5_000);
        assert_eq!(pack.overhead(), 3 * BLOCK - 10_000);
        assert_eq!(pack.remove(0, 5_000), Some(0..BLOCK));
        pack.punched(&(0..BLOCK));
        assert_eq!(pack.remove(5_000, 5_000), Some(BLOCK..2 * BLOCK));
        pack.punched(&(BLOCK..2 * BLOCK));
        assert_eq!((pack.live, pack.overhead()), (0, BLOCK));
        pack.add(10_000, 100);
        assert_eq!(pack.overhead(), BLOCK - 100, "expected the last block to be counted once");
    }

    proptest! {
        /// Whatever goes in whatever order: a range is freed only when no blob overlaps it, and at the end all is.
        #[test]
        fn what_is_freed_is_what_no_blob_needs(
            sizes in prop::collection::vec(1..10_000_u64, 1..40), order in any::<prop::sample::Index>()
        ) {
            let mut pack = Pack::default();
            let (mut blobs, mut end) = (Vec::new(), 0);
            for size in sizes {
                pack.add(end as u32, size);
                blobs.push((end, size));
                end += size;
            }
            let whole = end.next_multiple_of(BLOCK);
            let mut freed = 0;
            while !blobs.is_empty() {
                let (at, size) = blobs.remove(order.index(blobs.len()));
                if let Some(range) = pack.remove(at as u32, size) {
                    let is_needed = |(at, size): &(u64, u64)| *at < range.end && at + size > range.start;
                    prop_assert!(!blobs.iter().any(is_needed), "{range:?}");
                    pack.punched(&range);
                    freed += range.end - range.start;
                }
            }
            prop_assert_eq!((freed, pack.overhead(), pack.live_bytes), (whole, 0, 0));
        }
    }
}
