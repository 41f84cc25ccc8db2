//! A place in a source text.

use std::ops::Range;

/// Reads bytes without line continuations: a backslash, blanks and the end of the line are nothing (gcc allows the blanks).
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte, which is taken.
    pub(super) fn next(&mut self) -> Option<u8> {
        self.skip_continuations();
        let byte = self.text.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// The next byte, which stays.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip_continuations();
        self.text.get(self.at).copied()
    }

    /// Takes the next byte if it is `wanted`.
    pub(super) fn take(&mut self, wanted: u8) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    fn skip_continuations(&mut self) {
        while self.text.get(self.at) == Some(&b'\\') {
            let rest = &self.text[self.at + 1..];
            let blanks = rest.iter().take_while(|c| matches!(c, b' ' | b'\t' | b'\x0b' | b'\x0c' | b'\r')).count();
            if rest.get(blanks) != Some(&b'\n') {
                return;
            }
            self.at += blanks + 2;
        }
    }

    /// Takes everything up to the end of a comment `/* */` that has begun.
    pub(super) fn skip_comment(&mut self) {
        while let Some(byte) = self.next() {
            if byte == b'*' && self.take(b'/') {
                return;
            }
        }
    }

    /// Takes everything before the end of the line.
    pub(super) fn skip_line(&mut self) {
        while !matches!(self.peek(), None | Some(b'\n')) {
            self.at += 1;
        }
    }

    /// Takes a string or character that has begun, up to its quote or the end of the line. An unterminated one ends there, as in gcc.
    /// Returns whether there was a quote.
    pub(super) fn skip_quoted(&mut self, quote: u8) -> bool {
        while let Some(byte) = self.peek() {
            if byte == b'\n' {
                return false;
            }
            self.at += 1;
            if byte == quote {
                return true;
            }
            if byte == b'\\' && !matches!(self.peek(), None | Some(b'\n')) {
                self.at += 1;
            }
        }
        false
    }

    /// Takes a raw string whose quote has been taken. In it, continuations are text. Nothing is taken if it is no raw string.
    pub(super) fn skip_raw_string(&mut self) -> bool {
        const MAX_DELIMITER: usize = 16;
        let rest = &self.text[self.at..];
        let Some(open) = rest.iter().take(MAX_DELIMITER + 1).position(|c| *c == b'(') else { return false };
        let delimiter = &rest[..open];
        if delimiter.iter().any(|c| matches!(c, b' ' | b')' | b'\\' | b'"' | b'\t' | b'\n' | b'\x0b' | b'\x0c')) {
            return false;
        }
        let end = [b")", delimiter, b"\""].concat();
        let content = &rest[open + 1..];
        match content.windows(end.len()).position(|part| part == end) {
            Some(found) => {
                self.at += open + 1 + found + end.len();
                true
            }
            None => false,
        }
    }

    /// Where the cursor is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// A part of the text as it is written.
    pub(super) fn written(&self, range: Range<usize>) -> &'a [u8] {
        self.text.get(range).unwrap_or_default()
    }
}
