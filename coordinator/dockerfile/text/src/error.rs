//! What is wrong with a Dockerfile, where, and what to do about it.

use std::fmt;

use crate::source::{Source, Span};

/// Maximum number of characters of a user's text that a message repeats.
const MAX_SHOWN: usize = 120;

/// Something that is wrong, at a place of a source that the caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem without advice.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { message: message.into(), span, help: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same with advice, if there is any.
    #[must_use]
    pub fn maybe_help(self, help: Option<String>) -> Self {
        Self { help: help.or(self.help), ..self }
    }

    /// The same elsewhere.
    #[must_use]
    pub fn at(self, span: Span) -> Self {
        Self { span, ..self }
    }

    /// An error of this source.
    pub fn of(self, source: &Source) -> Error {
        Error { problem: Box::new(self), file: source.clone() }
    }
}

/// An error of a Dockerfile. All of them are its author's to fix.
///
/// Displayed as `FILE:LINE: MESSAGE; HELP`; [`Error::render`] shows the line as well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    problem: Box<Problem>,
    file: Source,
}

impl Error {
    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.problem.message
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        self.problem.help.as_deref()
    }

    /// Where.
    pub fn span(&self) -> Span {
        self.problem.span
    }

    /// The line, from 1 on.
    pub fn line(&self) -> usize {
        self.file.line(self.problem.span.start)
    }

    /// The column, in characters, from 1 on.
    pub fn column(&self) -> usize {
        self.file.column(self.problem.span.start)
    }

    /// The error with the line that it is about and a caret below, for a terminal. Its size is bounded.
    pub fn render(&self, colours: bool) -> String {
        let problem = &self.problem;
        crate::render::error(&self.file, problem.span, &problem.message, problem.help.as_deref(), colours)
    }

    /// The line that it is about with a caret below, to follow a message that says what is wrong. Its size is bounded.
    pub fn snippet(&self) -> String {
        let rendered = crate::render::error(&self.file, self.problem.span, "", None, false);
        rendered.lines().skip(1).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.name(), self.line(), self.problem.message)?;
        self.problem.help.as_ref().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

/// A user's text in a message: in backticks, on one line, and not longer than a line.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// `did you mean …?` for the known name that is most similar to an unknown one, if any is similar.
pub fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

/// The known name that is most similar to an unknown one, if any is similar.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distances are quadratic: what is too long for a name is similar to none.
    if name.len() > MAX_SHOWN {
        return None;
    }
    known
        .into_iter()
        .filter(|candidate| !candidate.is_empty() && candidate.len() <= MAX_SHOWN && *candidate != name)
        .map(|candidate| (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len().max(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Names in backticks, separated by commas.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
