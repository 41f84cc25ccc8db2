//! What readers of lines share: the lines, and the tests that they find.

use std::borrow::Cow;

use crate::text::colourless;
use crate::{Error, Limits, Test};

/// Tests as they are found.
pub(crate) struct Found<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) tests: Vec<Test>,
    /// Whether anything that a test runner prints was found, if only that it has no tests.
    pub(crate) is_report: bool,
}

impl Found<'_> {
    /// Adds a test; returns its place.
    pub(crate) fn add(&mut self, test: Test) -> Result<usize, Error> {
        if self.tests.len() >= self.limits.tests {
            return Err(Error::Many { most: self.limits.tests });
        }
        self.is_report = true;
        self.tests.push(test);
        Ok(self.tests.len().saturating_sub(1))
    }
}

/// The lines of an output, without colours.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = Cow<'_, str>> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.map(|line| colourless(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))))
}
