//! The lines of a file, one after another.

use super::MAX_LINE;
use crate::error::Problem;
use crate::source::Span;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A line, with its line break.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// The text, with its line break.
    pub(super) raw: &'a str,
    /// Its first byte in the file.
    pub(super) start: usize,
}

impl<'a> Line<'a> {
    /// The text without its line break.
    pub(super) fn text(&self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }

    /// Where the text without its line break is.
    pub(super) fn span(&self) -> Span {
        Span::new(self.start, self.start.saturating_add(self.text().len()))
    }

    /// Whether it is a comment.
    pub(super) fn is_comment(&self) -> bool {
        self.raw.trim_start().starts_with('#')
    }
}

/// Reads lines.
pub(super) struct Lines<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    /// The lines of a text. A byte order mark at its beginning is left out.
    pub(super) fn new(text: &'a str) -> Self {
        match text.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) => Self { rest, at: BYTE_ORDER_MARK.len_utf8() },
            None => Self { rest: text, at: 0 },
        }
    }

    /// The next line, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Line<'a>>, Problem> {
        let Some(raw) = self.rest.split_inclusive('\n').next() else { return Ok(None) };
        let start = self.at;
        if raw.len() > MAX_LINE {
            return Err(Problem::new(
                Span::new(start, start.saturating_add(1)),
                format!("the line is longer than {MAX_LINE} bytes"),
            )
            .help("split it with line continuations, or move the data to a file of the context"));
        }
        self.rest = self.rest.strip_prefix(raw).unwrap_or_default();
        self.at = start.saturating_add(raw.len());
        Ok(Some(Line { raw, start }))
    }

    /// Where the next line begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}
