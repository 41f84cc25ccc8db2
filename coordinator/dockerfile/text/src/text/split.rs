//! An instruction's line: its name, its flags and the rest.

use std::ops::Range;

use super::logical::Logical;
use crate::source::Word;

/// White space that separates arguments.
pub(super) const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// The parts of a line. Ranges are bytes of the logical line.
pub(super) struct Split {
    pub(super) keyword: Word,
    pub(super) flags: Vec<Word>,
    /// The arguments, without white space around them.
    pub(super) rest: Range<usize>,
}

/// Splits the part of a line that an instruction is in.
pub(super) fn split(line: &Logical, whole: Range<usize>) -> Split {
    let text = &line.text;
    let whole = trimmed(text, whole);
    let end = line.part(&whole).find(BLANKS).map_or(whole.end, |at| whole.start.saturating_add(at));
    let keyword = line.word(whole.start..end);
    let (flags, rest) = flags(line, end..whole.end);
    Split { keyword, flags, rest: trimmed(text, rest) }
}

/// A range without the white space at its ends.
pub(super) fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = text.get(range.clone()).unwrap_or_default();
    let start = range.start.saturating_add(offset(part.trim_start(), part));
    start..start.saturating_add(part.trim().len())
}

/// Where a part of a text begins in it, in bytes.
pub(super) fn offset(part: &str, text: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// A word of a line.
pub(super) fn word(line: &Logical, value: String, range: Range<usize>) -> Word {
    Word { value, span: line.map.span(range.start, range.end) }
}

/// Words that begin with `--`, with quotes and escapes removed, and what follows them.
fn flags(line: &Logical, range: Range<usize>) -> (Vec<Word>, Range<usize>) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        let rest = line.part(&(at..range.end));
        let text = rest.trim_start();
        let start = at.saturating_add(offset(text, rest));
        if !text.starts_with("--") {
            return (flags, start..range.end);
        }
        let (value, was_quoted, length) = flag(text, line.escape);
        let end = start.saturating_add(length);
        at = end;
        if value == "--" {
            return (flags, end..range.end);
        }
        if was_quoted || !value.is_empty() {
            flags.push(word(line, value, start..end));
        }
    }
}

/// The flag that a text begins with: its value, whether a part of it was quoted, and its length in bytes.
fn flag(text: &str, escape: char) -> (String, bool, usize) {
    let mut value = String::new();
    let mut quote = None;
    let mut was_quoted = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (value, was_quoted, at),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                was_quoted = true;
            }
            Some(open) if c == open => quote = None,
            _ if c == escape => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, was_quoted, text.len())
}
