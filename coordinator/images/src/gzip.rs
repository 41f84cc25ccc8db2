//! gzip on all processors, with the same bytes whatever their number.
//!
//! The data is divided into blocks of one size. Each is compressed alone, so several are at the same time, and a block ends at a byte: one
//! after another they are one stream of deflate. Source: RFC 1951 and RFC 1952.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes of a block: so many that what begins anew in each costs a thousandth of the size.
const BLOCK_BYTES: usize = 512 << 10;
/// Room for what comes out at once.
const SPARE_BYTES: usize = 256 << 10;
/// Level: 5 takes half as long again for one percent.
const LEVEL: u32 = 3;
/// No flags, no time, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

type Compressed = JoinHandle<io::Result<Vec<u8>>>;

/// Compresses what is written to it.
pub(crate) struct Gzip<W: Write> {
    to: W,
    block: Vec<u8>,
    /// Blocks that are being compressed, in order.
    running: VecDeque<Compressed>,
    most: usize,
    checksum: Crc,
}

impl<W: Write> Gzip<W> {
    /// Compresses into `to`.
    pub(crate) fn new(mut to: W) -> io::Result<Self> {
        to.write_all(&HEADER)?;
        let most = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { to, block: Vec::new(), running: VecDeque::new(), most, checksum: Crc::new() })
    }

    /// Writes what is left, and the end.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let last = deflated(&self.block, true);
        while let Some(block) = self.running.pop_front() {
            self.to.write_all(&joined(block)?)?;
        }
        self.to.write_all(&last?)?;
        self.to.write_all(&self.checksum.sum().to_le_bytes())?;
        self.to.write_all(&self.checksum.amount().to_le_bytes())?;
        Ok(self.to)
    }

    /// Begins to compress a full block.
    fn begin(&mut self) -> io::Result<()> {
        if self.running.len() >= self.most
            && let Some(oldest) = self.running.pop_front()
        {
            self.to.write_all(&joined(oldest)?)?;
        }
        let block = Arc::new(std::mem::take(&mut self.block));
        let other = block.clone();
        match thread::Builder::new().name("gzip".to_owned()).spawn(move || deflated(&other, false)) {
            Ok(running) => self.running.push_back(running),
            // No thread can be had now.
            Err(_) => {
                let compressed = deflated(&block, false)?;
                while let Some(before) = self.running.pop_front() {
                    self.to.write_all(&joined(before)?)?;
                }
                self.to.write_all(&compressed)?;
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // Only when more follows: the last block has an end of its own.
        if self.block.len() == BLOCK_BYTES && !data.is_empty() {
            self.begin()?;
        }
        let taken = data.get(..BLOCK_BYTES.saturating_sub(self.block.len())).unwrap_or(data);
        self.checksum.update(taken);
        self.block.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushing in mid-stream would change the bytes.
        Ok(())
    }
}

fn joined(block: Compressed) -> io::Result<Vec<u8>> {
    block.join().map_err(|_| io::Error::other("a thread that compresses has panicked"))?
}

fn deflated(block: &[u8], is_last: bool) -> io::Result<Vec<u8>> {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    // Up to a whole byte, or with the mark of the end.
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::with_capacity((block.len() / 2).saturating_add(SPARE_BYTES));
    loop {
        let rest = usize::try_from(deflate.total_in()).ok().and_then(|read| block.get(read..)).unwrap_or_default();
        let status = deflate.compress_vec(rest, &mut out, flush).map_err(io::Error::other)?;
        let is_all_read = deflate.total_in() == block.len() as u64;
        // It was only flushed if what came out did not fill the room that there was.
        if status == Status::StreamEnd || !is_last && is_all_read && out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(SPARE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn compressed(data: &[u8], most: usize, pieces: usize) -> Vec<u8> {
        let mut gzip = Gzip { most, ..Gzip::new(Vec::new()).unwrap() };
        data.chunks(pieces).for_each(|piece| gzip.write_all(piece).unwrap());
        gzip.finish().unwrap()
    }

    fn read(data: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(data).read_to_end(&mut plain).unwrap();
        plain
    }

    /// Text that can be compressed, and so many parts in eight of noise that cannot.
    fn data(length: usize, seed: u64, noise: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut data = Vec::with_capacity(length + 64);
        while data.len() < length {
            match next() % 8 < noise {
                true => (0..32).for_each(|_| data.extend(next().to_le_bytes())),
                false => data.extend_from_slice(b"the same words again and again, "),
            }
        }
        data.truncate(length);
        data
    }

    #[test]
    fn blocks_of_every_length_are_read_as_they_were() {
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 5 * BLOCK_BYTES + 7] {
            for noise in [0, 2, 8] {
                let plain = data(length, 7, noise);
                assert!(read(&compressed(&plain, 2, 8192)) == plain, "{length} {noise}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn neither_processors_nor_pieces_change_a_byte(
            length in 0..4 * BLOCK_BYTES, seed: u64, noise in 0..9_u64, most in 1..6_usize, pieces in 1..3 * BLOCK_BYTES,
        ) {
            let plain = data(length, seed, noise);
            let alone = compressed(&plain, 1, length.max(1));
            prop_assert!(alone == compressed(&plain, most, pieces));
            prop_assert!(read(&alone) == plain);
        }
    }
}
