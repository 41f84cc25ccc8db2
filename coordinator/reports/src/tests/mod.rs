//! Reports as the runners write them.

use super::*;

mod hostile;
mod junit;
mod printed;
mod printed_tap;

fn all(text: &str) -> Vec<Test> {
    read(text.as_bytes(), &Limits::default()).unwrap()
}

/// Suite, name and outcome of each.
fn told(tests: &[Test]) -> Vec<(&str, &str, Outcome)> {
    tests.iter().map(|test| (test.suite.as_str(), test.name.as_str(), test.outcome)).collect()
}
