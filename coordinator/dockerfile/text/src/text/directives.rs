//! Directives: `# syntax=`, `# escape=` and `# check=` on the first lines.

use super::split::offset;
use crate::error::Problem;
use crate::source::{Span, Word};

/// The directives of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The escape character: `\` or `` ` ``.
    pub escape: char,
    /// The value of `# check=`.
    pub check: Option<Word>,
    /// The value of `# syntax=`.
    pub syntax: Option<Word>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', check: None, syntax: None }
    }
}

/// Reads directives from the first lines until one is none.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Whether a line has ended them.
    done: bool,
    has_escape: bool,
    pub(super) directives: Directives,
}

impl Reader {
    /// Whether a line is a directive. It is given without white space before and a line break after.
    pub(super) fn take(&mut self, line: &str, start: usize) -> Result<bool, Problem> {
        if self.done {
            return Ok(false);
        }
        let span = Span::new(start, start.saturating_add(line.len()));
        let Some((name, value)) = line.strip_prefix('#').and_then(assignment) else {
            self.done = true;
            return Ok(false);
        };
        let at = start.saturating_add(offset(value, line));
        let word = Word { value: value.to_owned(), span: Span::new(at, at.saturating_add(value.len())) };
        let is_repeated = match name.to_ascii_lowercase().as_str() {
            "syntax" => self.directives.syntax.replace(word).is_some(),
            "check" => self.directives.check.replace(word).is_some(),
            "escape" => {
                self.directives.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => {
                        let message = format!("invalid escape character {}", crate::error::shown(value));
                        return Err(Problem::new(word.span, message).help("expected `\\` or a backtick"));
                    }
                };
                std::mem::replace(&mut self.has_escape, true)
            }
            _ => {
                self.done = true;
                return Ok(false);
            }
        };
        if is_repeated {
            return Err(Problem::new(span, format!("the directive `{}` is repeated", name.to_ascii_lowercase()))
                .help("keep one of them"));
        }
        Ok(true)
    }
}

/// `NAME = VALUE`, with white space around each.
pub fn assignment(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let is_name =
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then_some((name, value))
}

/// The frontend that a file names: by `# syntax=`, or as files in other languages do, by `// syntax=` or a JSON object's
/// `syntax`, each after a `#!` line or none.
pub fn syntax(text: &str) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = if text.starts_with("#!") { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text };
    let first = |comment: &str| {
        for line in text.lines() {
            let (name, value) = line.strip_prefix(comment).and_then(assignment)?;
            match name.to_ascii_lowercase().as_str() {
                "syntax" => return value.split(' ').next(),
                "escape" | "check" => {}
                _ => return None,
            }
        }
        None
    };
    first("#").or_else(|| first("//")).or_else(|| {
        #[derive(serde::Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            syntax: &'a str,
        }
        text.trim_start()
            .starts_with('{')
            .then(|| serde_json::from_str::<Object<'_>>(text).ok())
            .flatten()
            .map(|o| o.syntax)
    })
}
