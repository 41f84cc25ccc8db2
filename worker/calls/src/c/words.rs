//! A command line's words: options with their values, and files.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
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
    /// Which arguments it consists of.
    pub(super) at: Range<usize>,
}

impl Word<'_> {
    /// What the option means; `None` for a file.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        self.row.map(|row| row.meaning)
    }
}

/// Splits arguments into words. Fails at an option that is not known.
pub(super) fn words(arguments: &[OsString]) -> impl Iterator<Item = Result<Word<'_>, Refusal>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let argument = arguments.get(next)?;
        let start = next;
        next += 1;
        let bytes = argument.as_bytes();
        if !bytes.starts_with(b"-") || bytes == b"-" {
            return Some(Ok(Word { row: None, value: argument, at: start..next }));
        }
        let option = || argument.to_string_lossy().into_owned();
        let Some((row, joined)) = lookup(bytes) else {
            return Some(Err(Refusal::UnknownOption { option: option() }));
        };
        let separate = row.form == Form::Separate || row.form == Form::Either && joined.is_empty();
        let value = if separate {
            let Some(value) = arguments.get(next) else {
                return Some(Err(Refusal::MissingArgument { option: option() }));
            };
            next += 1;
            value.as_os_str()
        } else {
            OsStr::from_bytes(joined)
        };
        Some(Ok(Word { row: Some(row), value, at: start..next }))
    })
}
