//! The rules of `docker build --check`, by the names that it has for them.

mod config;
mod rule;

pub use config::Config;
pub use rule::Rule;

use std::cell::RefCell;
use std::rc::Rc;

use crate::source::{Source, Span};

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// The rule.
    pub rule: Rule,
    /// What it found.
    pub message: String,
    /// The line that it is about, from 1 on.
    pub line: usize,
    /// The place that it is about.
    pub span: Span,
}

/// Collects what rules find. Clones share what is found, so that it outlives an error.
#[derive(Debug, Clone)]
pub(crate) struct Lints {
    config: Config,
    source: Source,
    found: Rc<RefCell<Vec<Lint>>>,
}

/// Maximum number of findings that are collected.
const MAX_FOUND: usize = 1_000;

impl Lints {
    pub(crate) fn new(config: Config, source: Source) -> Self {
        Self { config, source, found: Rc::default() }
    }

    /// Reports a finding, unless the file or the instruction's comments leave out the rule.
    pub(crate) fn report(&mut self, rule: Rule, span: Span, comments: &[String], message: impl FnOnce() -> String) {
        let runs = if comments.is_empty() { self.config.runs(rule) } else { self.config.with(comments).runs(rule) };
        let mut found = self.found.borrow_mut();
        if runs && found.len() < MAX_FOUND {
            found.push(Lint { rule, message: message(), line: self.source.line(span.start), span });
        }
    }

    /// What was found.
    pub(crate) fn found(&self) -> Vec<Lint> {
        self.found.borrow().clone()
    }

    /// The rules that found something, if findings are errors.
    pub(crate) fn errors(&self) -> Vec<&'static str> {
        if !self.config.is_error() {
            return Vec::new();
        }
        let mut names: Vec<&str> = self.found.borrow().iter().map(|lint| lint.rule.name()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
