//! What each option of rustc is: one row an option. Source: `rustc --help -v` of 1.95. An option that has no row is refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::refusal::Refusal;

/// What an option means for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It changes the result, or nothing, and names no file.
    Pass,
    CrateName,
    CrateType,
    Emit,
    OutDir,
    Target,
    Test,
    Extern,
    Library,
    LibraryDirectory,
    Json,
    Codegen,
    Information,
    Sysroot,
    /// `-o`: which of several outputs it names is rustc's to decide.
    Output,
}

/// An option and whether it has a value: in the same argument after `=` (or at once, if it is one letter), or in the next.
struct Row(&'static str, bool, Meaning);

#[rustfmt::skip]
static ROWS: &[Row] = &[
    Row("--crate-name", true, Meaning::CrateName),
    Row("--crate-type", true, Meaning::CrateType),
    Row("--emit", true, Meaning::Emit),
    Row("--out-dir", true, Meaning::OutDir),
    Row("--target", true, Meaning::Target),
    Row("--test", false, Meaning::Test),
    Row("--extern", true, Meaning::Extern),
    Row("-l", true, Meaning::Library),
    Row("-L", true, Meaning::LibraryDirectory),
    Row("--json", true, Meaning::Json),
    Row("-C", true, Meaning::Codegen),
    Row("--codegen", true, Meaning::Codegen),
    Row("-o", true, Meaning::Output),
    Row("--sysroot", true, Meaning::Sysroot),
    Row("--print", true, Meaning::Information),
    Row("--explain", true, Meaning::Information),
    Row("-V", false, Meaning::Information),
    Row("-vV", false, Meaning::Information),
    Row("-Vv", false, Meaning::Information),
    Row("--version", false, Meaning::Information),
    Row("-h", false, Meaning::Information),
    Row("--help", false, Meaning::Information),
    Row("-v", false, Meaning::Pass),
    Row("--verbose", false, Meaning::Pass),
    Row("-g", false, Meaning::Pass),
    Row("-O", false, Meaning::Pass),
    Row("--cfg", true, Meaning::Pass),
    Row("--check-cfg", true, Meaning::Pass),
    Row("--cap-lints", true, Meaning::Pass),
    Row("--edition", true, Meaning::Pass),
    Row("--error-format", true, Meaning::Pass),
    Row("--color", true, Meaning::Pass),
    Row("--diagnostic-width", true, Meaning::Pass),
    Row("--remap-path-prefix", true, Meaning::Pass),
    Row("--remap-path-scope", true, Meaning::Pass),
    Row("-A", true, Meaning::Pass),
    Row("--allow", true, Meaning::Pass),
    Row("-W", true, Meaning::Pass),
    Row("--warn", true, Meaning::Pass),
    Row("--force-warn", true, Meaning::Pass),
    Row("-D", true, Meaning::Pass),
    Row("--deny", true, Meaning::Pass),
    Row("-F", true, Meaning::Pass),
    Row("--forbid", true, Meaning::Pass),
];

/// One option with its value, or one file.
pub(super) enum Word<'a> {
    /// What it means, its name, and its value.
    Option(Meaning, &'static str, &'a OsStr),
    File(&'a OsStr),
}

/// Splits arguments into words. Fails at an option that is not known.
pub(super) fn words(arguments: &[OsString]) -> impl Iterator<Item = Result<Word<'_>, Refusal>> {
    let mut arguments = arguments.iter();
    std::iter::from_fn(move || {
        let argument = arguments.next()?;
        let bytes = argument.as_bytes();
        if !bytes.starts_with(b"-") || bytes == b"-" {
            return Some(Ok(Word::File(argument)));
        }
        let option = || argument.to_string_lossy().into_owned();
        let Some((row, joined)) = lookup(bytes) else { return Some(Err(Refusal::UnknownOption { option: option() })) };
        let value = match joined {
            Some(value) => OsStr::from_bytes(value),
            None if !row.1 => OsStr::new(""),
            None => match arguments.next() {
                Some(value) => value,
                None => return Some(Err(Refusal::MissingArgument { option: option() })),
            },
        };
        Some(Ok(Word::Option(row.2, row.0, value)))
    })
}

/// The row of an argument, and the value in the same argument.
fn lookup(argument: &[u8]) -> Option<(&'static Row, Option<&[u8]>)> {
    if let Some(row) = ROWS.iter().find(|row| row.0.as_bytes() == argument) {
        return Some((row, None));
    }
    let long = argument.starts_with(b"--");
    ROWS.iter().filter(|row| row.1 && row.0.starts_with("--") == long).find_map(|row| {
        let rest = argument.strip_prefix(row.0.as_bytes())?;
        let value = if long { rest.strip_prefix(b"=")? } else { rest };
        Some((row, Some(value)))
    })
}
