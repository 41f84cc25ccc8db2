//! A command line's words: options with their values, and files.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::table::{Form, Meaning, Row, lookup};
use crate::refusal::Refusal;

/// One option, or one file.
#[derive(Debug)]
pub(super) struct Word<'a> {
    /// The option; `None` for a file.
    pub(super) row: Option<&'static Row>,
    /// The option's value; empty if it has none. The file.
    pub(super) value: &'a OsStr,
    /// The argument that it begins with.
    pub(super) first: &'a OsString,
    /// All arguments that it consists of.
    pub(super) arguments: &'a [OsString],
}

impl Word<'_> {
    /// What the option means; `None` for a file.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        self.row.map(|row| row.meaning)
    }
}

/// Splits arguments into words. Fails at an option that is not known.
pub(super) fn words(arguments: &[OsString]) -> impl Iterator<Item = Result<Word<'_>, Refusal>> {
    let mut rest = arguments;
    std::iter::from_fn(move || {
        let all = rest;
        let (argument, after) = rest.split_first()?;
        rest = after;
        let (alone, _) = all.split_at_checked(1)?;
        let bytes = argument.as_bytes();
        if !bytes.starts_with(b"-") || bytes == b"-" {
            return Some(Ok(Word { row: None, value: argument, first: argument, arguments: alone }));
        }
        let option = || argument.to_string_lossy().into_owned();
        let Some((row, joined)) = lookup(bytes) else {
            return Some(Err(Refusal::UnknownOption { option: option() }));
        };
        let separate = row.form == Form::Separate || row.form == Form::Either && joined.is_empty();
        if !separate {
            return Some(Ok(Word {
                row: Some(row),
                value: OsStr::from_bytes(joined),
                first: argument,
                arguments: alone,
            }));
        }
        let (Some((value, after)), Some((both, _))) = (after.split_first(), all.split_at_checked(2)) else {
            return Some(Err(Refusal::MissingArgument { option: option() }));
        };
        rest = after;
        Some(Ok(Word { row: Some(row), value, first: argument, arguments: both }))
    })
}
