//! The forms of arguments: one text, words, a JSON array, names with values.

use std::ops::Range;

use super::logical::Logical;
use super::split::{BLANKS, offset, trimmed, word};
use crate::error::{Problem, shown};
use crate::source::Word;

/// Arguments as they are written, before their meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// The whole text, for instructions that a shell reads or that take one value. Empty if there is none.
    Text(Word),
    /// Words separated by white space.
    Words(Vec<Word>),
    /// A JSON array of strings.
    Json(Vec<Word>),
    /// Names with values.
    Pairs(Vec<Pair>),
}

/// A name with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: Word,
    /// The value, with its quotes.
    pub value: Word,
    /// Whether it was written without `=`: `ENV NAME value`.
    pub is_legacy: bool,
}

/// The text of a range.
pub(super) fn text(line: &Logical, range: Range<usize>) -> Arguments {
    Arguments::Text(line.word(range))
}

/// Words separated by white space, without regard to quotes.
pub(super) fn blank_separated(line: &Logical, range: Range<usize>) -> Vec<Word> {
    let text = line.part(&range);
    let mut words = Vec::new();
    for part in text.split(BLANKS).filter(|part| !part.is_empty()) {
        let start = range.start.saturating_add(offset(part, text));
        words.push(line.word(start..start.saturating_add(part.len())));
    }
    words
}

/// A JSON array of strings, if the text is one; otherwise `None`.
pub(super) fn json(line: &Logical, range: Range<usize>) -> Result<Option<Vec<Word>>, Problem> {
    let range = trimmed(&line.text, range);
    let text = line.part(&range);
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let words = values.into_iter().map(|value| match value {
        serde_json::Value::String(value) => Ok(word(line, value, range.clone())),
        other => Err(Problem::new(
            line.map.span(range.start, range.end),
            format!("the JSON form takes strings only, found {}", shown(&other.to_string())),
        )
        .help("put quotes around it")),
    });
    words.collect::<Result<_, _>>().map(Some)
}

/// The JSON form, or else the whole text.
pub(super) fn json_or_text(line: &Logical, range: Range<usize>) -> Result<Arguments, Problem> {
    Ok(json(line, range.clone())?.map_or_else(|| text(line, range), Arguments::Json))
}

/// The JSON form, or else words.
pub(super) fn json_or_words(line: &Logical, range: Range<usize>) -> Result<Arguments, Problem> {
    let words = json(line, range.clone())?.map(Arguments::Json);
    Ok(words.unwrap_or_else(|| Arguments::Words(blank_separated(line, range))))
}

/// Words as a shell would separate them, with their quotes and escapes.
pub(super) fn quoted_words(line: &Logical, range: Range<usize>) -> Vec<Word> {
    let text = line.part(&range);
    let mut words = Vec::new();
    let mut value = String::new();
    let (mut start, mut quote, mut is_open) = (range.start, None, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let at = range.start.saturating_add(at);
        if quote.is_none() && c.is_whitespace() {
            if is_open {
                words.push(word(line, std::mem::take(&mut value), start..at));
                is_open = false;
            }
            continue;
        }
        if !is_open {
            (start, is_open) = (at, true);
        }
        if c == line.escape && quote != Some('\'') {
            // An escape character at the very end is dropped.
            let Some((_, escaped)) = chars.next() else { break };
            value.push(c);
            value.push(escaped);
            continue;
        }
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        value.push(c);
    }
    if is_open && !value.is_empty() {
        words.push(word(line, value, start..range.end));
    }
    words
}

/// `NAME=VALUE …`, or the old `NAME VALUE` whose value is the rest of the line.
pub(super) fn pairs(line: &Logical, range: Range<usize>, keyword: &str) -> Result<Arguments, Problem> {
    let words = quoted_words(line, range.clone());
    let Some(first) = words.first() else { return Ok(Arguments::Pairs(Vec::new())) };
    if !first.value.contains('=') {
        let text = line.part(&range);
        let Some((name, value)) = text.split_once(BLANKS) else {
            let problem = Problem::new(first.span, format!("{keyword} {} has no value", shown(&first.value)));
            return Err(problem.help(format!("write `{keyword} {}=VALUE`", first.value)));
        };
        let from = range.start.saturating_add(name.len());
        let value_at = range.start.saturating_add(offset(value.trim_start_matches(BLANKS), text));
        let name = line.word(range.start..from);
        let value = line.word(value_at..range.end);
        return Ok(Arguments::Pairs(vec![Pair { name, value, is_legacy: true }]));
    }
    let pairs = words.into_iter().map(|whole| match whole.value.split_once('=') {
        Some((name, value)) => Ok(Pair {
            name: Word { value: name.to_owned(), span: whole.span },
            value: Word { value: value.to_owned(), span: whole.span },
            is_legacy: false,
        }),
        None => Err(Problem::new(whole.span, format!("{} has no `=`", shown(&whole.value)))
            .help(format!("write `{keyword} NAME=VALUE …`, with quotes around a value that contains spaces"))),
    });
    Ok(Arguments::Pairs(pairs.collect::<Result<_, _>>()?))
}
