//! A reader that gives so many bytes and no more, until it is allowed more.
//!
//! What a tar says of its next entry (a long name, attributes) is read into memory as a whole, however long it claims to be. Between
//! two entries it is allowed [`BETWEEN_BYTES`]; while an entry is read, anything.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// Bytes from the end of one entry to the beginning of the next: headers, names and attributes.
const BETWEEN_BYTES: u64 = 1 << 20;

/// How much may be read yet. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    /// The next entry's own words are read, after so many bytes of the last one that are passed over.
    pub(crate) fn between_after(&self, bytes: u64) {
        self.0.set(BETWEEN_BYTES.saturating_add(bytes));
    }

    /// An entry's bytes are read.
    pub(crate) fn within(&self) {
        self.0.set(u64::MAX);
    }
}

/// The reader.
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
            let words = format!("what the tar says of one entry takes more than {BETWEEN_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.allowance.0.set(left - read as u64);
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
