//! Lists of patterns in which the last match counts.

use super::Invalid;
use super::tokens::{Deep, Token, matches, read};
use crate::golang::clean;

/// A list of patterns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    has_exceptions: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    is_exception: bool,
    form: Form,
}

/// How a pattern is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// The path is this text.
    Exact,
    /// The path begins with this: `DIRECTORY/**`.
    Prefix(String),
    /// The path ends with this: `**/NAME`, `**NAME` and `**`.
    Suffix(String),
    Tokens(Vec<Token>),
}

/// Which patterns match a directory or one above it: a walk hands it from a directory to what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parents(Vec<bool>);

impl Patterns {
    /// Reads patterns; empty ones are left out.
    ///
    /// # Errors
    /// The first invalid pattern's index, and what is wrong with it.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, (usize, Invalid)> {
        let mut set = Self::default();
        for (at, pattern) in patterns.into_iter().enumerate() {
            let text = pattern.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            let text = clean(text);
            let (text, is_exception) = match text.strip_prefix('!') {
                None => (text.as_str(), false),
                Some("") => return Err((at, Invalid::Exception)),
                Some(rest) => (rest, true),
            };
            set.has_exceptions |= is_exception;
            let form = form(text).map_err(|error| (at, error))?;
            set.patterns.push(Pattern { text: text.to_owned(), is_exception, form });
        }
        Ok(set)
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether there are patterns with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }

    /// Whether a path, or a directory above it, matches.
    pub fn matches(&self, path: &str) -> bool {
        self.matches_below(path, &Parents::default()).0
    }

    /// The same for a path whose directory is known, and what to hand to what is in it.
    pub fn matches_below(&self, path: &str, parents: &Parents) -> (bool, Parents) {
        let mut matched = false;
        let mut found = vec![false; self.patterns.len()];
        let inherited = parents.0.iter().copied().chain(std::iter::repeat(false));
        for ((pattern, found), inherited) in self.patterns.iter().zip(&mut found).zip(inherited) {
            // A pattern that changes nothing need not be compared.
            if !inherited && pattern.is_exception != matched {
                continue;
            }
            *found = inherited
                || pattern.matches(path)
                || (parents.0.is_empty() && directories(path).any(|directory| pattern.matches(directory)));
            if *found {
                matched = !pattern.is_exception;
            }
        }
        (matched, Parents(found))
    }

    /// Whether nothing below a directory that matches can be taken out again, so that a walk can skip it.
    pub fn covers(&self, directory: &str) -> bool {
        self.matches(directory)
            && !self.patterns.iter().any(|pattern| pattern.is_exception && pattern.may_be_below(directory))
    }

    /// Whether every entry of the root is matched by a pattern that says so.
    pub fn matches_everything(&self) -> bool {
        self.patterns.iter().any(|pattern| !pattern.is_exception && matches!(&*pattern.text, "*" | "**" | "**/*"))
    }
}

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Exact => path == self.text,
            Form::Prefix(prefix) => path.starts_with(prefix),
            Form::Suffix(suffix) => path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path),
            Form::Tokens(tokens) => matches(tokens, path),
        }
    }

    /// Whether it can match something below a directory. When in doubt, it can.
    fn may_be_below(&self, directory: &str) -> bool {
        let literal = self.text.split(['*', '?', '[', '\\']).next().unwrap_or_default();
        let below = format!("{directory}/");
        literal.starts_with(&below) || (literal.len() < self.text.len() && below.starts_with(literal))
    }
}

fn form(text: &str) -> Result<Form, Invalid> {
    let tokens = read(text, Deep::Yes)?;
    // Checked by Go's rules too, in which `**` is nothing special: both read classes and escapes in the same way.
    let is_literal = |tokens: &[Token]| tokens.iter().all(|token| matches!(token, Token::Char(_)));
    if text.contains('\\') {
        return Ok(Form::Tokens(tokens));
    }
    Ok(match tokens.as_slice() {
        literal if is_literal(literal) => Form::Exact,
        [Token::All] => Form::Suffix(String::new()),
        [Token::Directories, Token::Inside, rest @ ..] if is_literal(rest) => {
            Form::Suffix(text.strip_prefix("**").unwrap_or(text).to_owned())
        }
        [rest @ .., Token::All] if is_literal(rest) => {
            Form::Prefix(text.trim_end_matches('/').trim_end_matches('*').to_owned())
        }
        _ => Form::Tokens(tokens),
    })
}

/// The directories above a path, without the root.
fn directories(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at)).filter(|directory| !directory.is_empty())
}
