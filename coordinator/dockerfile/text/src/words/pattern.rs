//! Patterns of `${NAME#pattern}` and `${NAME/pattern/text}`: `*` and `?`, and `\` before either of them.
//!
//! As in BuildKit, neither of the two matches a line break, and there are no `[…]`.

use regex::{NoExpand, Regex};

use super::Error;

/// Maximum number of bytes of a pattern.
const MAX_PATTERN: usize = 1 << 10;

enum Part {
    Text(char),
    One,
    Any,
}

/// A pattern.
pub(super) struct Pattern {
    parts: Vec<Part>,
    text: String,
}

impl Pattern {
    pub(super) fn read(text: &str) -> Result<Self, Error> {
        let problem = |why: String| Error::Pattern { pattern: text.chars().take(80).collect(), why };
        if text.len() > MAX_PATTERN {
            return Err(problem(format!("it is longer than {MAX_PATTERN} bytes")));
        }
        let mut parts = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            parts.push(match c {
                '*' => Part::Any,
                '?' => Part::One,
                // `\/` and `\}` only keep the `${…}` from ending.
                '\\' => match rest.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Part::Text(escaped),
                    Some(other) => return Err(problem(format!("`\\{other}` is not an escape"))),
                    None => return Err(problem("it ends with `\\`".to_owned())),
                },
                c => Part::Text(c),
            });
        }
        Ok(Self { parts, text: text.to_owned() })
    }

    fn regex<'a>(&self, parts: impl Iterator<Item = &'a Part>, longest: bool, at_start: bool) -> Result<Regex, Error> {
        let mut regex = if at_start { "^".to_owned() } else { String::new() };
        for part in parts {
            match part {
                Part::Text(c) => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
                Part::One => regex.push('.'),
                Part::Any => regex.push_str(if longest { ".*" } else { ".*?" }),
            }
        }
        Regex::new(&regex).map_err(|error| Error::Pattern { pattern: self.text.clone(), why: error.to_string() })
    }

    /// The value without what the pattern matches at its beginning.
    pub(super) fn trim_start(&self, value: &str, longest: bool) -> Result<String, Error> {
        let regex = self.regex(self.parts.iter(), longest, true)?;
        let begin = regex.find(value).map_or("", |found| found.as_str());
        Ok(value.strip_prefix(begin).unwrap_or(value).to_owned())
    }

    /// The value without what the pattern matches at its end.
    pub(super) fn trim_end(&self, value: &str, longest: bool) -> Result<String, Error> {
        // A search from left to right finds the shortest match at the end only backwards.
        let regex = self.regex(self.parts.iter().rev(), longest, true)?;
        let backwards: String = value.chars().rev().collect();
        let end = regex.find(&backwards).map_or("", |found| found.as_str());
        Ok(backwards.strip_prefix(end).unwrap_or(&backwards).chars().rev().collect())
    }

    /// The value with what the pattern matches replaced.
    pub(super) fn replace(&self, value: &str, by: &str, all: bool) -> Result<String, Error> {
        let regex = self.regex(self.parts.iter(), true, false)?;
        let count = if all { 0 } else { 1 };
        Ok(regex.replacen(value, count, NoExpand(by)).into_owned())
    }
}
