//! A reader of JSON that ends what is too much.
//!
//! A parser keeps a string or a number until it is whole. Here, neither can be longer than a limit, and the whole can neither.

use std::io::{self, Read};

/// Most bytes of all.
pub(crate) const ALL: u64 = 256 << 20;
/// Most bytes of a string or a number.
const PIECE: usize = 64 << 10;

/// Bytes up to the limits; then an error.
#[derive(Debug)]
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    in_string: bool,
    is_escaped: bool,
    /// Bytes of the string or the number so far.
    piece: usize,
}

impl<R> Bounded<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: ALL, in_string: false, is_escaped: false, piece: 0 }
    }

    fn take(&mut self, byte: u8) {
        self.piece = self.piece.saturating_add(1);
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.in_string => self.is_escaped = true,
            b'"' => (self.in_string, self.piece) = (!self.in_string, 0),
            b',' | b':' | b'{' | b'}' | b'[' | b']' | b' ' | b'\n' | b'\r' | b'\t' if !self.in_string => self.piece = 0,
            _ => {}
        }
    }
}

fn too_much(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, what)
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| too_much("the file is too large"))?;
        for byte in buffer.get(..read).unwrap_or_default() {
            self.take(*byte);
            if self.piece > PIECE {
                return Err(too_much("a text or a number is too long"));
            }
        }
        Ok(read)
    }
}
