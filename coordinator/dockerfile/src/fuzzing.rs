//! Fuzz targets, used by `coordinator/dockerfile/fuzz` and, in a short form, by `tests/hostile_bytes.rs`.
//!
//! Each function accepts any bytes, and panics if an invariant is violated.

use crate::options::Options;
use crate::patterns::{Glob, Ignore, Parents};
use crate::platform::Platform;
use crate::source::{Source, Span};
use crate::text::{Arguments, Node, Text};
use crate::words::{Lexer, MAX_EXPANDED, NoVariables};
use crate::{Bases, Build, bases, lower, parse, print, text};

/// An instruction without places.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    words: Vec<String>,
    form: &'static str,
    heredocs: Vec<(String, bool, bool, String)>,
    trigger: Option<Box<Plain>>,
}

fn plain(node: &Node) -> Plain {
    let mut words = vec![node.keyword.value.clone()];
    words.extend(node.flags.iter().chain(&node.check).map(|word| word.value.clone()));
    let form = match &node.arguments {
        Arguments::Text(word) => {
            words.push(word.value.clone());
            "text"
        }
        Arguments::Words(all) => {
            words.extend(all.iter().map(|word| word.value.clone()));
            "words"
        }
        Arguments::Json(all) => {
            words.extend(all.iter().map(|word| word.value.clone()));
            "json"
        }
        Arguments::Pairs(pairs) => {
            words.extend(pairs.iter().flat_map(|pair| [pair.name.value.clone(), pair.value.value.clone()]));
            "pairs"
        }
    };
    let heredocs = node.heredocs.iter();
    let heredocs = heredocs.map(|h| (h.name.clone(), h.expands, h.strips_tabs, h.content.clone()));
    Plain {
        words,
        form,
        heredocs: heredocs.collect(),
        trigger: node.trigger.as_deref().map(|own| Box::new(plain(own))),
    }
}

/// Every place is within the text, and on boundaries of characters.
fn check_span(span: Span, text: &str) {
    assert!(text.get(span.start..span.end).is_some(), "expected a part of the text, found {span:?} of {}", text.len());
}

fn check_text(source: &str, read: &Text) {
    for node in &read.nodes {
        for span in [node.keyword.span, node.span, node.line_span] {
            check_span(span, source);
        }
        node.flags.iter().for_each(|flag| check_span(flag.span, source));
        if let Arguments::Words(words) | Arguments::Json(words) = &node.arguments {
            words.iter().for_each(|word| check_span(word.span, source));
        }
    }
    // What is printed is read as the same instructions, unless joined lines are too long for one.
    let printed = print::print(read);
    match text::read(&printed) {
        Ok(again) => {
            let old: Vec<Plain> = read.nodes.iter().map(plain).collect();
            let new: Vec<Plain> = again.nodes.iter().map(plain).collect();
            assert_eq!(old, new, "printed as:\n{printed}");
        }
        Err(problem) => assert!(
            printed.lines().any(|line| line.len() >= text::MAX_LINE) || printed.len() > text::MAX_BYTES,
            "expected what is printed to be read, found `{}`:\n{printed}",
            problem.message
        ),
    }
}

fn check_build(build: &Build, source: &str) {
    for (at, operation) in build.operations.iter().enumerate() {
        assert!(operation.inputs().iter().all(|input| *input < at), "expected inputs before {operation:?}");
        check_span(operation.span, source);
    }
    assert!(build.result < build.operations.len());
    assert!(build.inherited_history <= build.image.history.len());
}

/// A Dockerfile.
pub fn dockerfile(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    if let Ok(read) = text::read(source) {
        check_text(source, &read);
    }
    let options = Options { build_platform: Platform::linux("amd64"), all_stages: true, ..Options::default() };
    let file = match parse("Dockerfile", source) {
        Ok(file) => file,
        Err(error) => return assert!(!error.render(false).is_empty() && !error.to_string().is_empty()),
    };
    let known = Bases::assumed();
    let wanted = bases(&file, &options, &known);
    assert!(wanted.as_ref().map_or(true, Vec::is_empty), "expected nothing to be wanted");
    match lower(&file, &options, &known) {
        Ok(build) => check_build(&build, source),
        Err(error) => assert!(!error.render(true).is_empty()),
    }
}

/// Words, in all ways to read them.
pub fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for bits in 0..32_u8 {
        let lexer = Lexer {
            escape: if bits & 1 == 0 { '\\' } else { '`' },
            keep_quotes: bits & 2 != 0,
            keep_escapes: bits & 4 != 0,
            ignore_quotes: bits & 8 != 0,
            keep_unset: bits & 16 != 0,
        };
        let own = std::collections::BTreeMap::from([("A".to_owned(), text.to_owned())]);
        for variables in [&NoVariables as &dyn crate::words::Variables, &own] {
            if let Ok(expanded) = lexer.expand(text, variables) {
                assert!(expanded.text.len() <= MAX_EXPANDED.saturating_add(text.len()));
            }
        }
    }
}

/// A `.dockerignore`, of which the first line is also a path.
pub fn ignore(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = text.lines().next().unwrap_or_default().trim_matches('/');
    let _ = Glob::new(path).map(|glob| glob.matches(path));
    let Ok(ignore) = Ignore::read(".dockerignore", text) else { return };
    let patterns = ignore.patterns();
    let mut parents = Parents::default();
    for (at, _) in path.match_indices('/') {
        let directory = path.get(..at).unwrap_or_default();
        // A walk that skips what is covered loses nothing.
        if !directory.is_empty() && patterns.covers(directory) {
            assert!(patterns.matches(&format!("{directory}/x")), "`{directory}` in:\n{text}");
        }
        parents = patterns.matches_below(directory, &parents).1;
    }
    let _ = patterns.matches_below(path, &parents);
    let _ = Source::new("x", text).line(text.len());
}
