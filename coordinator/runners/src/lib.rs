//! How test runners run some of a project's tests: those that failed, or a part that was given to a shard.
//!
//! A step's command is not changed but for a word before the runner: a script of Kiln's, which lies among the step's files, runs it with arguments that
//! choose the tests. Invariant: what is not understood runs all tests.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod balance;
mod commands;
mod tool;

use std::collections::BTreeMap;

pub use balance::{Learned, Unit, Wanted};
pub use tool::Tool;

/// Where the script and its lists are, relative to the root of a step's tree.
const PLACE: &str = ".kiln/tests";
/// Most bytes of the tests that are chosen by name: they are arguments of a command.
const MAX_LIST: usize = 256 << 10;
/// Most bytes of a pattern that chooses them: it is one argument.
const MAX_PATTERN: usize = 96 << 10;

/// A command that runs some of its tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The command.
    pub run: String,
    /// Its further files, by their paths relative to the root of the tree.
    pub files: BTreeMap<String, String>,
}

/// What came of tests, by suite and name.
#[derive(Debug, Clone, Default)]
pub struct Ran<'a> {
    /// Those that failed.
    pub failed: Vec<(&'a str, &'a str)>,
    /// Those that need not run again.
    pub others: Vec<(&'a str, &'a str)>,
    /// What the shards have, if it was a shard that ran.
    pub shares: Option<&'a [(u32, String)]>,
}

/// A command that runs the failed tests only; `None` if its runner cannot, is not known, or may have stopped at the first failure: what it has not run then
/// must not be left out. `directory` is where it starts.
pub fn only(run: &str, directory: Option<&str>, ran: &Ran<'_>) -> Option<Chosen> {
    let calls = tool::calls(run);
    let [call] = calls[..] else { return None };
    let tool = call.tool;
    if tool.may_stop_early(run) {
        return None;
    }
    let list = |units: Vec<String>| {
        let units: std::collections::BTreeSet<String> = units.into_iter().collect();
        let list: String = units.iter().map(|unit| format!("{unit}\n")).collect();
        (list.len() <= MAX_LIST).then_some(list)
    };
    let mut chosen = Chosen { run: by_script(run, directory, "only"), files: BTreeMap::new() };
    if matches!(tool, Tool::Pytest | Tool::Unittest) {
        // It is told what it need not run, so that what has not run for any reason does.
        let passed = list(ran.others.iter().filter_map(|(suite, name)| tool.unit(suite, name)).collect())?;
        chosen.files = files(tool, shares(ran.shares.unwrap_or_default()));
        chosen.files.insert(format!("{PLACE}/passed"), passed);
        return Some(chosen);
    }
    let units = ran.failed.iter().map(|(suite, name)| tool.unit(suite, name)).collect::<Option<Vec<_>>>()?;
    if matches!(tool, Tool::Jest | Tool::Vitest) {
        let pattern = format!("^({})$", units.iter().map(|unit| escaped(unit)).collect::<Vec<_>>().join("|"));
        chosen.files.insert(format!("{PLACE}/pattern"), Some(pattern).filter(|text| text.len() <= MAX_PATTERN)?);
    }
    chosen.files.extend(files(tool, list(units).filter(|list| !list.is_empty())?));
    Some(chosen)
}

/// A command of which each shard runs a part. `shares` says which of the tests that are known each shard has (from 1); the others are dealt out
/// in turn. `None` if its runner is not known: the command divides its tests itself.
pub fn sharded(run: &str, directory: Option<&str>, shares: &[(u32, String)]) -> Option<Chosen> {
    let tool = Tool::of(run)?;
    Some(Chosen { run: by_script(run, directory, "shard"), files: files(tool, self::shares(shares)) })
}

fn shares(shares: &[(u32, String)]) -> String {
    let mut list = String::new();
    for (shard, unit) in shares {
        let line = format!("{shard}\t{unit}\n");
        if list.len().saturating_add(line.len()) <= MAX_LIST && !unit.contains(['\n', '\0']) {
            list.push_str(&line);
        }
    }
    list
}

fn files(tool: Tool, list: String) -> BTreeMap<String, String> {
    let mut files = vec![("run.sh", include_str!("shell/run.sh").to_owned()), ("list", list)];
    let more: &[(&str, &str)] = match tool {
        Tool::Pytest => &[("kiln_tests.py", include_str!("shell/kiln_tests.py"))],
        Tool::Unittest => &[
            ("kiln_tests.py", include_str!("shell/kiln_tests.py")),
            ("kiln_unittest.py", include_str!("shell/kiln_unittest.py")),
        ],
        Tool::Jest => &[("sequencer.cjs", include_str!("shell/sequencer.cjs"))],
        _ => &[],
    };
    files.extend(more.iter().map(|(name, text)| (*name, (*text).to_owned())));
    files.into_iter().map(|(name, text)| (format!("{PLACE}/{name}"), text)).collect()
}

/// A command whose runners the script starts.
fn by_script(run: &str, directory: Option<&str>, mode: &str) -> String {
    let mut text = run.to_owned();
    for call in tool::calls(run).iter().rev() {
        text.insert_str(call.at, &format!("sh \"$KILN_TESTS/run.sh\" {mode} {} ", call.tool.word()));
    }
    let above = directory.unwrap_or_default().split('/').filter(|part| !matches!(*part, "" | ".")).count();
    let root = vec![".."; above].join("/");
    let root = if root.is_empty() { "." } else { &root };
    format!("export KILN_TESTS=\"$(cd {root} && pwd)/{PLACE}\"\n{text}")
}

/// A text as a pattern of JavaScript that matches it.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\^$.|?*+()[]{}/-".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests;
