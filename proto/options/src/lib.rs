//! A program's options from a TOML file, beside its command line and its variables.
//!
//! Everything is derived from the program's own `clap::Command`: a new option can stand in the file without more code, and a value from the
//! file goes through the same parser and the same checks (`requires`, `conflicts_with`) as one from the command line.
//!
//! Invariant: what the command line sets wins over variables, these over the file, and the file over defaults.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod directory;
mod document;
mod error;
mod file;
mod nearest;
mod settings;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};

pub use directory::usable_directory;
pub use document::{Document, Place};
pub use error::Error;
use file::File;
pub use nearest::{did_you_mean, nearest};
pub use settings::{Change, Setting, Settings, Source};

/// The options that say where the file is, for `#[command(flatten)]`. They cannot stand in the file.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Options {
    /// File with options, in TOML: `store-size = "50GiB"` is `--store-size 50GiB`; a list is an array, and a flag is `true`. The command line
    /// and variables come before it. Its paths are absolute, or relative to the file. It is read again on SIGHUP.
    #[arg(id = CONFIG, long = "config", env = "KILN_CONFIG_FILE", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the options and all files that they name, print what the program would run with, and end: with 0 if everything can be used,
    /// else with 1.
    #[arg(id = CHECK, long = "check-config")]
    pub check_config: bool,
}

const CONFIG: &str = "config_file";
const CHECK: &str = "check_config";
/// Options that are for the command line only.
const NOT_IN_FILE: [&str; 4] = [CONFIG, CHECK, "help", "version"];

/// A program's options, and where each comes from.
#[derive(Debug)]
pub struct Read<A> {
    /// The options.
    pub arguments: A,
    /// All that are set, in the order of `--help`.
    pub settings: Settings,
}

/// Reads a program's options from its command line, its variables and the file that these name.
///
/// # Errors
/// If the file cannot be used, or clap refuses the options. For `--help` and `--version` that is what to print.
pub fn read<A: CommandFactory + FromArgMatches>(line: &[OsString]) -> Result<Read<A>, Error> {
    let command = A::command();
    // Whatever is wrong or missing here is found again below, with the file's options.
    let lenient = command.clone().mut_args(|arg| arg.required(false)).ignore_errors(true);
    let first = lenient.try_get_matches_from(line).map_err(Error::line)?;
    let path = first.try_get_one::<PathBuf>(CONFIG).ok().flatten().cloned();
    let file = path.as_deref().map(|path| File::read(path, &command)).transpose()?;
    let is_set = |id: &str| matches!(first.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    let entries: Vec<_> = file.iter().flat_map(|file| &file.entries).filter(|entry| !is_set(&entry.id)).collect();
    let mut whole: Vec<OsString> = line.iter().take(1).cloned().collect();
    whole.extend(entries.iter().flat_map(|entry| entry.arguments()).map(OsString::from));
    whole.extend(line.iter().skip(1).cloned());
    let matches = command.clone().try_get_matches_from(whole);
    let matches = matches.map_err(|error| Error::Options { error, file: file.as_ref().map(File::shown) })?;
    let settings = Settings::of(&command, &matches, path, &entries);
    let arguments = A::from_arg_matches(&matches).map_err(Error::line)?;
    Ok(Read { arguments, settings })
}

/// Prints what a program would run with and what is wrong with that, for `--check-config`. The exit code is that of the program.
pub fn report(settings: &Settings, problems: &[String]) -> ExitCode {
    print!("{settings}");
    for problem in problems {
        eprintln!("error: {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The keys that may stand in a program's file, as `(key, id)`.
fn keys(command: &clap::Command) -> impl Iterator<Item = (&str, &clap::Arg)> {
    command
        .get_arguments()
        .filter(|arg| !NOT_IN_FILE.contains(&arg.get_id().as_str()))
        .filter_map(|arg| Some((arg.get_long()?, arg)))
}

/// Whether the option takes a file or a directory.
fn is_path(arg: &clap::Arg) -> bool {
    arg.get_value_parser().type_id() == std::any::TypeId::of::<PathBuf>()
        || arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.contains("FILE")))
}

/// Whether the option's value itself is secret, and not only the file that it names.
fn is_secret(arg: &clap::Arg) -> bool {
    arg.is_hide_env_values_set() && !is_path(arg)
}

/// A path of the file, which is absolute, or relative to the file.
fn beside(file: &Path, path: &str) -> String {
    if path.contains("://") {
        return path.to_owned();
    }
    let at = file.parent().unwrap_or(Path::new("."));
    at.join(path).to_string_lossy().into_owned()
}

/// The command without variables and without what must be given: parses single values.
fn alone(command: &clap::Command) -> clap::Command {
    command.clone().mut_args(|arg| arg.env(Resettable::Reset).required(false))
}

#[cfg(test)]
mod tests;
