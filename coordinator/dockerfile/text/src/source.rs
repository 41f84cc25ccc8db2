//! The text of a Dockerfile, and places in it.

use std::ops::Range;
use std::sync::Arc;

/// Bytes of a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
}

impl Span {
    /// From `start` up to, but not including, `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }

    /// The smallest span that contains both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A value, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Word {
    /// The text, without what the reader has removed: line continuations, and the quotes of flags.
    pub value: String,
    /// Where it was written.
    pub span: Span,
}

/// A named text. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    /// The first byte of each line.
    lines: Arc<[usize]>,
}

impl Source {
    /// A text, and the name of its file for messages.
    pub fn new(name: &str, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at.saturating_add(1))).collect();
        Self { name: name.into(), text: text.into(), lines }
    }

    /// The name of its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line of a byte, from 1 on.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// The lines of a span, from 1 on, both included.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        let last = span.end.saturating_sub(1).max(span.start);
        (self.line(span.start), self.line(last))
    }

    /// The column of a byte in its line, in characters, from 1 on.
    pub fn column(&self, at: usize) -> usize {
        let line = self.line_bytes(self.line(at));
        self.text
            .get(line.start..at.clamp(line.start, line.end))
            .map_or(1, |before| before.chars().count().saturating_add(1))
    }

    /// The bytes of a line, without its line break.
    pub fn line_bytes(&self, line: usize) -> Range<usize> {
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.lines.get(line).map_or(self.text.len(), |next| next.saturating_sub(1)).max(start);
        let is_carried = self.text.get(start..end).is_some_and(|text| text.ends_with('\r'));
        start..end.saturating_sub(usize::from(is_carried))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one() {
        let source = Source::new("Dockerfile", "FROM a\r\nRUN é x\n");
        assert_eq!((source.line(0), source.line(7), source.line(8)), (1, 1, 2));
        assert_eq!(source.line_bytes(1), 0..6);
        assert_eq!(source.line_bytes(2), 8..16);
        assert_eq!(source.column(15), 7);
        assert_eq!(source.lines(Span::new(0, 9)), (1, 2));
        assert_eq!(source.lines(Span::new(0, 8)), (1, 1));
        assert_eq!(source.line_bytes(9), 17..17);
    }
}
