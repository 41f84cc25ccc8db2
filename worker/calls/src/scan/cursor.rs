//! A place in a source text.

/// Reads bytes without line continuations: a backslash, blanks and the end of the line are nothing (gcc allows the blanks).
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// The next byte, which is taken.
    pub(super) fn next(&mut self) -> Option<u8> {
        self.skip_continuations();
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// The next byte, which stays.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip_continuations();
        self.rest.first().copied()
    }

    /// Takes the next byte if it is `wanted`.
    pub(super) fn take(&mut self, wanted: u8) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.advance();
        }
        there
    }

    fn skip_continuations(&mut self) {
        while let [b'\\', after @ ..] = self.rest {
            let mut after = after;
            while let [b' ' | b'\t' | b'\x0b' | b'\x0c' | b'\r', rest @ ..] = after {
                after = rest;
            }
            let [b'\n', rest @ ..] = after else { return };
            self.rest = rest;
        }
    }

    /// Takes the byte that was peeked at.
    fn advance(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
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
            self.advance();
        }
    }

    /// Takes a string or character that has begun, up to its quote or the end of the line. An unterminated one ends there, as in gcc.
    /// Returns whether there was a quote.
    pub(super) fn skip_quoted(&mut self, quote: u8) -> bool {
        while let Some(byte) = self.peek() {
            if byte == b'\n' {
                return false;
            }
            self.advance();
            if byte == quote {
                return true;
            }
            if byte == b'\\' && !matches!(self.peek(), None | Some(b'\n')) {
                self.advance();
            }
        }
        false
    }

    /// Takes a raw string whose quote has been taken. In it, continuations are text. Nothing is taken if it is no raw string.
    pub(super) fn skip_raw_string(&mut self) -> bool {
        const MAX_DELIMITER: usize = 16;
        let open = self.rest.iter().take(MAX_DELIMITER + 1).position(|c| *c == b'(');
        let Some((delimiter, [_, content @ ..])) = open.and_then(|open| self.rest.split_at_checked(open)) else {
            return false;
        };
        if delimiter.iter().any(|c| matches!(c, b' ' | b')' | b'\\' | b'"' | b'\t' | b'\n' | b'\x0b' | b'\x0c')) {
            return false;
        }
        let end = [b")", delimiter, b"\""].concat();
        let found = content.windows(end.len()).position(|part| part == end);
        let Some(rest) = found.and_then(|at| content.get(at..)?.strip_prefix(&end[..])) else { return false };
        self.rest = rest;
        true
    }

    /// What has been taken since a cursor was at `begin`, as it is written.
    pub(super) fn since(&self, begin: Self) -> &'a [u8] {
        begin.rest.len().checked_sub(self.rest.len()).and_then(|taken| begin.rest.get(..taken)).unwrap_or_default()
    }
}
