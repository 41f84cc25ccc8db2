//! A reader with a limit on bytes, which can be raised.
//!
//! A tar's metadata for the next entry (a long name, attributes) is read into memory completely, whatever its claimed
//! size. Between two entries, [`BETWEEN_BYTES`] may be read; within an entry, there is no limit.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// Maximum bytes from the end of one entry to the start of the next: headers, names and attributes.
const BETWEEN_BYTES: u64 = 1 << 20;

/// The remaining bytes that may be read. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    /// Starts reading the next entry's metadata, after this many skipped bytes of the previous one.
    pub(crate) fn between_after(&self, bytes: u64) {
        self.0.set(BETWEEN_BYTES.saturating_add(bytes));
    }

    /// Starts reading an entry's content.
    pub(crate) fn within(&self) {
        self.0.set(u64::MAX);
    }
}

/// The limited reader.
#[derive(Debug)]
pub(crate) struct Metered<R> {
    inner: R,
    allowance: Allowance,
}

impl<R> Metered<R> {
    pub(crate) fn new(inner: R) -> (Self, Allowance) {
        let allowance = Allowance(Rc::new(Cell::new(BETWEEN_BYTES)));
        (Self { inner, allowance: allowance.clone() }, allowance)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.get();
        if left == 0 {
            let words = format!("the metadata of a tar entry takes more than {BETWEEN_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let read = self.inner.by_ref().take(left).read(buffer)?;
        self.allowance.0.set(left.saturating_sub(read as u64));
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
