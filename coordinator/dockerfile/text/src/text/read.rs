//! A file becomes a list of instructions.

use std::ops::Range;

use super::arguments::{self, Arguments};
use super::directives::{Directives, Reader};
use super::heredoc::{self, Heredoc};
use super::lines::Lines;
use super::logical::{self, Logical, Map};
use super::split::{self, Split};
use super::{MAX_BYTES, MAX_INSTRUCTIONS};
use crate::error::Problem;
use crate::source::{Span, Word};

/// A text as instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The directives on the first lines.
    pub directives: Directives,
    /// The instructions, in order.
    pub nodes: Vec<Node>,
}

/// An instruction as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name as it is written.
    pub keyword: Word,
    /// Its flags with `--`, without quotes.
    pub flags: Vec<Word>,
    /// For `HEALTHCHECK`, the word before the arguments: `NONE` or `CMD`.
    pub check: Option<Word>,
    /// For `ONBUILD`, the instruction that it stores.
    pub trigger: Option<Box<Node>>,
    /// The arguments. Of `ONBUILD`, empty.
    pub arguments: Arguments,
    /// The heredocs that its line begins.
    pub heredocs: Vec<Heredoc>,
    /// Its line, with continuations joined.
    pub line: String,
    /// The comments before it, without `#`.
    pub comments: Vec<String>,
    /// Whether an empty line is within its continued lines.
    pub has_empty_line: bool,
    /// Where it is, with its heredocs.
    pub span: Span,
    /// Where its own line is, without heredocs.
    pub line_span: Span,
}

/// Reads a file.
///
/// # Errors
/// If the text is no list of instructions, or is too large.
pub fn read(text: &str) -> Result<Text, Problem> {
    nodes(text, None)
}

/// Reads an instruction that an image stores (`ONBUILD`), and that stands for a place of the file that uses the image.
///
/// # Errors
/// If the text is not one instruction.
pub fn read_trigger(text: &str, place: Span) -> Result<Node, Problem> {
    let mut nodes = nodes(text, Some(place)).map_err(|problem| problem.at(place))?.nodes;
    match (nodes.pop(), nodes.is_empty()) {
        (Some(node), true) => Ok(node),
        _ => Err(Problem::new(place, "a stored ONBUILD instruction must be a single one")),
    }
}

fn nodes(text: &str, place: Option<Span>) -> Result<Text, Problem> {
    if text.len() > MAX_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_BYTES >> 20);
        return Err(Problem::new(Span::new(0, 0), message).help("move data that it contains to files of the context"));
    }
    let mut lines = Lines::new(text);
    let mut directives = Reader::default();
    let mut comments = Vec::new();
    let mut nodes = Vec::new();
    while let Some(mut line) = logical::next(&mut lines, &mut directives, &mut comments)? {
        line.escape = directives.directives.escape;
        if let Some(place) = place {
            (line.map, line.span) = (Map::Fixed(place), place);
        }
        let mut node = node(&line, 0..line.text.len(), 0)?;
        node.has_empty_line = line.has_empty_line;
        if node.takes_heredocs() {
            node.heredocs = heredoc::heredocs_of(&line.text);
            heredoc::read(&mut lines, &mut node.heredocs, node.line_span)?;
            node.span.end = place.map_or(lines.at(), |place| place.end).max(node.span.end);
            if node.heredocs.is_empty() {
                node.span = node.line_span;
            }
            if let Some(place) = place {
                node.heredocs.iter_mut().for_each(|heredoc| heredoc.span = place);
            }
        }
        node.comments = line.comments;
        nodes.push(node);
        if nodes.len() > MAX_INSTRUCTIONS {
            let problem = Problem::new(line.span, format!("more than {MAX_INSTRUCTIONS} instructions"));
            return Err(problem.help("generate several smaller files"));
        }
    }
    if nodes.is_empty() {
        let problem = Problem::new(Span::new(0, 0), "the file has no instructions");
        return Err(problem.help("begin with `FROM IMAGE`"));
    }
    Ok(Text { directives: directives.directives, nodes })
}

/// Maximum depth of `ONBUILD ONBUILD …`: what is deeper is an error later in any case.
const MAX_DEPTH: usize = 4;

/// The instruction in a part of a line.
fn node(line: &Logical, whole: Range<usize>, depth: usize) -> Result<Node, Problem> {
    let Split { keyword, flags, rest } = split::split(line, whole.clone());
    let mut node = Node {
        keyword,
        flags,
        check: None,
        trigger: None,
        arguments: Arguments::Words(Vec::new()),
        heredocs: Vec::new(),
        line: line.part(&whole).to_owned(),
        comments: Vec::new(),
        has_empty_line: false,
        span: line.span,
        line_span: line.span,
    };
    let name = node.keyword.value.to_ascii_uppercase();
    node.arguments = match name.as_str() {
        "ADD" | "COPY" | "VOLUME" => arguments::json_or_words(line, rest)?,
        "ARG" => Arguments::Words(arguments::quoted_words(line, rest)),
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => arguments::json_or_text(line, rest)?,
        "ENV" | "LABEL" => arguments::pairs(line, rest, &name)?,
        "EXPOSE" | "FROM" => Arguments::Words(arguments::blank_separated(line, rest)),
        "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => arguments::text(line, rest),
        "HEALTHCHECK" => {
            let end = line.part(&rest).find(char::is_whitespace).map_or(rest.end, |at| rest.start.saturating_add(at));
            let check = line.word(rest.start..end);
            node.check = Some(check).filter(|check| !check.value.is_empty());
            arguments::json_or_text(line, split::trimmed(&line.text, end..rest.end))?
        }
        "ONBUILD" if !rest.is_empty() && depth < MAX_DEPTH => {
            node.trigger = Some(Box::new(self::node(line, rest, depth.saturating_add(1))?));
            node.arguments
        }
        // An unknown name is reported by those who know what instructions mean.
        _ => node.arguments,
    };
    Ok(node)
}

impl Node {
    /// Whether a `<<NAME` in its line begins a heredoc.
    fn takes_heredocs(&self) -> bool {
        let of = match (&self.trigger, self.keyword.value.eq_ignore_ascii_case("ONBUILD")) {
            (Some(trigger), true) => trigger,
            _ => self,
        };
        let is_json = matches!(of.arguments, Arguments::Json(_));
        ["ADD", "COPY", "RUN"].iter().any(|name| of.keyword.value.eq_ignore_ascii_case(name)) && !is_json
    }
}
