//! Instructions' lines: several lines of the file joined by continuations, and where each part of them was written.

use std::ops::Range;

use super::directives::Reader;
use super::lines::Lines;
use super::split::offset;
use crate::error::Problem;
use crate::source::{Span, Word};

/// Maximum number of comments before an instruction that are kept, the last ones.
const MAX_COMMENTS: usize = 200;

/// A line as an instruction sees it.
#[derive(Debug, Default)]
pub(super) struct Logical {
    /// The text.
    pub(super) text: String,
    /// Where parts of it were written.
    pub(super) map: Map,
    /// Where all of it was written.
    pub(super) span: Span,
    /// The comments before it, without `#`.
    pub(super) comments: Vec<String>,
    /// The escape character.
    pub(super) escape: char,
    /// Whether there is an empty line within it.
    pub(super) has_empty_line: bool,
}

/// Where the parts of a text were written.
#[derive(Debug, Clone)]
pub(super) enum Map {
    /// Each part's first byte in the text, and in the file.
    Parts(Vec<(usize, usize)>),
    /// All of it stands for this place.
    Fixed(Span),
}

impl Default for Map {
    fn default() -> Self {
        Self::Parts(Vec::new())
    }
}

impl Map {
    /// Where a part of the text was written.
    pub(super) fn span(&self, start: usize, end: usize) -> Span {
        match self {
            Self::Fixed(span) => *span,
            Self::Parts(parts) => {
                let at = |byte: usize| {
                    let part = parts.partition_point(|(from, _)| *from <= byte).saturating_sub(1);
                    parts.get(part).map_or(0, |(from, to)| to.saturating_add(byte.saturating_sub(*from)))
                };
                let first = at(start);
                let last = if end > start { at(end.saturating_sub(1)).saturating_add(1) } else { first };
                Span::new(first, last)
            }
        }
    }
}

/// Reads the next instruction's line: skips comments and empty lines, and joins continuations.
pub(super) fn next(
    lines: &mut Lines<'_>,
    directives: &mut Reader,
    comments: &mut Vec<String>,
) -> Result<Option<Logical>, Problem> {
    while let Some(line) = lines.next()? {
        let text = line.text().trim_start();
        let start = line.start.saturating_add(offset(text, line.text()));
        if directives.take(text, start)? {
            continue;
        }
        if let Some(comment) = text.strip_prefix('#') {
            match comment.trim() {
                // An empty comment separates what is before it from the instruction.
                "" => comments.clear(),
                comment => {
                    if comments.len() == MAX_COMMENTS {
                        comments.remove(0);
                    }
                    comments.push(comment.to_owned());
                }
            }
            continue;
        }
        if text.is_empty() {
            continue;
        }
        let mut logical = Logical { span: Span::new(start, line.span().end), ..Logical::default() };
        logical.comments = std::mem::take(comments);
        let mut goes_on = logical.add(text, start, directives.directives.escape);
        while goes_on {
            let Some(line) = lines.next()? else { break };
            logical.span.end = line.span().end;
            if line.is_comment() {
                continue;
            }
            if line.text().trim_start().is_empty() {
                // With its line break, so that the span ends in this line.
                logical.span.end = line.start.saturating_add(line.raw.len());
                logical.has_empty_line = true;
                continue;
            }
            goes_on = logical.add(line.text(), line.start, directives.directives.escape);
        }
        return Ok(Some(logical));
    }
    Ok(None)
}

impl Logical {
    /// A part of the text.
    pub(super) fn part(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// A part of the text, with where it was written.
    pub(super) fn word(&self, range: Range<usize>) -> Word {
        Word { value: self.part(&range).to_owned(), span: self.map.span(range.start, range.end) }
    }

    /// Adds a line, and returns whether the next one belongs to the instruction as well.
    fn add(&mut self, line: &str, start: usize, escape: char) -> bool {
        let kept = continued(line, escape);
        if let Map::Parts(parts) = &mut self.map {
            parts.push((self.text.len(), start));
        }
        self.text.push_str(kept.unwrap_or(line));
        kept.is_some()
    }
}

/// A line without its escape character at the end, if it has one there. Two of them in a row continue nothing.
fn continued(line: &str, escape: char) -> Option<&str> {
    let before = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    if before.ends_with(escape) { None } else { Some(before) }
}
