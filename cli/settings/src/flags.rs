//! Flags that the configuration adds to commands: `[flags]` for all farms, `[farms.NAME.flags]` for one.
//!
//! Invariant: a flag of the command line or a variable wins over the same flag of a farm, and that over the same flag for all farms.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use kiln_options::did_you_mean;

use crate::file::{Error, Flags};

/// Flags that decide which farm is used, and with which credentials: a farm of the configuration has these.
const OF_FARMS: [&str; 5] = ["farm", "ca", "cert", "key", "token-file"];

/// Flags that were added to a command, and where they are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// As they would stand on the command line.
    pub arguments: Vec<String>,
    /// The table of the file: `[flags]` or `[farms.NAME.flags]`.
    pub table: String,
}

/// The command that was given: its path, such as `["cache", "list"]`, and its own matches.
pub(crate) fn given(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let (mut path, mut at) = (Vec::new(), matches);
    while let Some((name, below)) = at.subcommand() {
        path.push(name.to_owned());
        at = below;
    }
    (path, at)
}

/// What the tables add to a command. The first table counts most.
///
/// # Errors
/// If a table names a command or a flag that there is not.
pub(crate) fn added(
    root: &Command,
    matches: &ArgMatches,
    tables: &[(String, &Flags)],
    file: &Path,
) -> Result<Vec<Added>, Error> {
    let (path, own) = given(matches);
    let key = path.join(" ");
    check_commands(root, tables, file)?;
    let mut taken: BTreeSet<String> = own
        .ids()
        .map(|id| id.as_str().to_owned())
        .filter(|id| matches!(own.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable)))
        .collect();
    let mut all = Vec::new();
    for (table, flags) in tables {
        let Some(flags) = flags.get(&key) else { continue };
        let parsed = of_command(root, &path, flags).map_err(|reason| wrong(file, table, &reason))?;
        let new: Vec<(String, Vec<String>)> = parsed.into_iter().filter(|(id, _)| !taken.contains(id)).collect();
        taken.extend(new.iter().map(|(id, _)| id.clone()));
        let arguments: Vec<String> = new.into_iter().flat_map(|(_, arguments)| arguments).collect();
        if !arguments.is_empty() {
            all.push(Added { arguments, table: table.clone() });
        }
    }
    Ok(all)
}

/// Whether every command and every flag of the tables is there.
///
/// # Errors
/// The first that is not.
pub(crate) fn check(root: &Command, tables: &[(String, &Flags)], file: &Path) -> Result<(), Error> {
    check_commands(root, tables, file)?;
    for (table, flags) in tables {
        for (key, flags) in *flags {
            let path: Vec<String> = key.split(' ').map(str::to_owned).collect();
            of_command(root, &path, flags).map_err(|reason| wrong(file, table, &reason))?;
        }
    }
    Ok(())
}

fn wrong(file: &Path, table: &str, reason: &str) -> Error {
    Error::Invalid { path: file.to_owned(), reason: format!("`[{table}]`: {reason}") }
}

fn check_commands(root: &Command, tables: &[(String, &Flags)], file: &Path) -> Result<(), Error> {
    let known = commands(root, "");
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for (table, flags) in tables {
        if let Some(name) = flags.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(wrong(file, table, &format!("`kiln` has no command `{name}`{}", did_you_mean(name, &known))));
        }
    }
    Ok(())
}

fn of_command(root: &Command, path: &[String], flags: &[String]) -> Result<Vec<(String, Vec<String>)>, String> {
    let key = path.join(" ");
    let command = find(root, path).ok_or_else(|| format!("`kiln` has no command `{key}`"))?;
    parse(root, command, flags).map_err(|reason| format!("`{key}`: {reason}"))
}

/// The command line with these flags behind the command's name, where its own flags come after them.
pub(crate) fn with(root: &Command, line: &[OsString], added: &[Added]) -> Vec<OsString> {
    let (before, after) = line.split_at(behind_name(root, line));
    let added = added.iter().flat_map(|added| added.arguments.iter().map(OsString::from));
    before.iter().cloned().chain(added).chain(after.iter().cloned()).collect()
}

/// Where the words behind the command's name begin. What follows a flag that takes a value is no name, however it reads.
fn behind_name(root: &Command, line: &[OsString]) -> usize {
    let mut known: Vec<&Arg> = root.get_arguments().collect();
    let (mut at, mut end, mut next) = (root, line.len().min(1), 1_usize);
    while let Some(word) = line.get(next).and_then(|word| word.to_str()) {
        next = next.saturating_add(1);
        if word.starts_with('-') && word.len() > 1 {
            next = next.saturating_add(values_behind(&known, word));
        } else if let Some(below) = at.find_subcommand(word) {
            known.extend(below.get_arguments());
            (at, end) = (below, next);
        } else {
            break;
        }
    }
    end
}

/// How many words behind a flag are its values.
fn values_behind(known: &[&Arg], word: &str) -> usize {
    let taken = |arg: &&Arg| match arg.get_action().takes_values() {
        true => arg.get_num_args().map_or(1, |count| count.min_values()),
        false => 0,
    };
    if let Some(long) = word.strip_prefix("--") {
        let is_it = |arg: &&&Arg| {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
        };
        return known.iter().find(is_it).map_or(0, taken);
    }
    // The first of several letters that takes a value has the rest of the word.
    let mut letters = word.chars().skip(1);
    while let Some(letter) = letters.next() {
        let values = known.iter().find(|arg| arg.get_short() == Some(letter)).map_or(0, taken);
        if values > 0 {
            return if letters.next().is_some() { 0 } else { values };
        }
    }
    0
}

/// The names of all commands that somebody may give.
fn commands(of: &Command, before: &str) -> Vec<String> {
    let below = of.get_subcommands().filter(|below| !below.is_hide_set());
    below
        .flat_map(|below| {
            let name = format!("{before}{}", below.get_name());
            let deeper = commands(below, &format!("{name} "));
            if below.has_subcommands() { deeper } else { vec![name] }
        })
        .collect()
}

fn find<'a>(root: &'a Command, path: &[String]) -> Option<&'a Command> {
    path.iter().try_fold(root, |at, name| at.find_subcommand(name))
}

/// The flags by their ids, as they would stand on the command line.
fn parse(root: &Command, command: &Command, flags: &[String]) -> Result<Vec<(String, Vec<String>)>, String> {
    let own = command.get_arguments().chain(root.get_arguments().filter(|arg| arg.is_global_set()));
    let own: Vec<Arg> = own
        .filter(|arg| !arg.is_positional() && arg.get_long().is_none_or(|long| !OF_FARMS.contains(&long)))
        .map(free)
        .collect();
    let names: Vec<String> = own.iter().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // What excludes or needs something else is compared on the whole command line.
    let alone = own.iter().fold(Command::new("kiln").disable_help_flag(true), |alone, arg| alone.arg(arg.clone()));
    let line = std::iter::once("kiln").chain(flags.iter().map(String::as_str));
    let matches = alone.try_get_matches_from(line).map_err(|error| words(&error, &names))?;
    let given = own.iter().filter(|arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine));
    Ok(given.filter_map(|arg| Some((arg.get_id().to_string(), arguments(arg, &matches)?))).collect())
}

/// The flag by itself: what it needs and excludes may not be there.
fn free(arg: &Arg) -> Arg {
    arg.clone()
        .required(false)
        .env(Resettable::Reset)
        .requires(Resettable::Reset)
        .conflicts_with(Resettable::Reset)
        .overrides_with(Resettable::Reset)
        .required_unless_present(Resettable::Reset)
}

fn arguments(arg: &Arg, matches: &ArgMatches) -> Option<Vec<String>> {
    let name = arg.get_long()?;
    let values = || matches.get_raw(arg.get_id().as_str()).into_iter().flatten().map(|value| value.to_string_lossy());
    Some(match arg.get_action() {
        ArgAction::SetTrue => vec![format!("--{name}")],
        ArgAction::Count => vec![format!("--{name}"); usize::from(matches.get_count(arg.get_id().as_str()))],
        // Optional values: none is given.
        _ if values().next().is_none() => vec![format!("--{name}")],
        _ => values().map(|value| format!("--{name}={value}")).collect(),
    })
}

/// clap's error about flags of the file, in one line.
fn words(error: &clap::Error, names: &[&str]) -> String {
    let wrong = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(wrong)) => wrong.clone(),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::UnknownArgument if OF_FARMS.iter().any(|name| wrong == format!("--{name}")) => {
            format!("`{wrong}` is not a flag of a command; `[farms.NAME]` says which farm, and how it is reached")
        }
        ErrorKind::UnknownArgument if wrong.starts_with('-') => {
            format!("there is no flag `{wrong}`{}", did_you_mean(&wrong, names))
        }
        ErrorKind::UnknownArgument => format!("`{wrong}` is not a flag; only flags can be added"),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

/// A line for each command that gets flags, on one farm or on all.
pub(crate) fn lines(flags: &Flags, farm: Option<&str>) -> Vec<String> {
    let table = farm.map_or("flags".to_owned(), |farm| format!("farms.{farm}.flags"));
    flags.iter().map(|(command, all)| format!("    kiln {command} {}  [{table}]", all.join(" "))).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn flags(list: &[(&str, &[&str])]) -> Flags {
        list.iter().map(|(name, all)| ((*name).to_owned(), all.iter().map(|&flag| flag.to_owned()).collect())).collect()
    }

    /// What becomes of a command line with these flags of a farm and of all farms.
    fn line(given: &[&str], of_farm: &Flags, of_all: &Flags) -> Result<String, String> {
        let root = kiln_args::Cli::command();
        let line: Vec<OsString> = std::iter::once("kiln").chain(given.iter().copied()).map(OsString::from).collect();
        let matches = root.clone().try_get_matches_from(&line).unwrap();
        let tables = [("farms.team.flags".to_owned(), of_farm), ("flags".to_owned(), of_all)];
        let added = added(&root, &matches, &tables, Path::new("FILE")).map_err(|error| error.to_string())?;
        let whole = with(&root, &line, &added);
        root.try_get_matches_from(&whole).map_err(|error| error.to_string())?;
        Ok(whole.iter().skip(1).map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_command_line_wins_over_a_farm_and_that_over_all_farms() {
        let of_farm = flags(&[("build", &["--platform", "linux/arm64", "--no-cache"])]);
        let of_all = flags(&[
            ("build", &["--platform=linux/amd64", "--target", "a", "--target", "b"]),
            ("cache list", &["--json"]),
        ]);
        let of = |given: &[&str]| line(given, &of_farm, &of_all).unwrap();
        assert_eq!(of(&["build", "."]), "build --platform=linux/arm64 --no-cache --target=a --target=b .");
        assert_eq!(
            of(&["build", "--platform", "linux/amd64", "--target", "c"]),
            "build --no-cache --platform linux/amd64 --target c",
            "expected a list to be replaced and not continued"
        );
        assert_eq!(of(&["--lost-after", "3", "cache", "list"]), "--lost-after 3 cache list --json");
        assert_eq!(of(&["plan"]), "plan");
        // A farm, or another value, may be called like a command.
        let few = flags(&[("build", &["--no-cache"])]);
        let of = |given: &[&str]| line(given, &few, &Flags::default()).unwrap();
        assert_eq!(of(&["--farm", "build", "build", "."]), "--farm build build --no-cache .");
        assert_eq!(of(&["--farm=build", "build", "build"]), "--farm=build build --no-cache build");
        assert_eq!(
            of(&["--token-file", "cache", "--farm", "build", "build"]),
            "--token-file cache --farm build build --no-cache"
        );
    }

    #[test]
    fn what_there_is_not_is_refused_with_the_nearest() {
        let none = Flags::default();
        for (table, words) in [
            (flags(&[("biuld", &[])]), "`[flags]`: `kiln` has no command `biuld`; did you mean `build`?"),
            (flags(&[("cache", &["--json"])]), "`kiln` has no command `cache`"),
            (
                flags(&[("build", &["--platfrom", "x"])]),
                "`build`: there is no flag `--platfrom`; did you mean `--platform`?",
            ),
            (flags(&[("build", &["--platform", "vax"])]), "invalid value 'vax' for '--platform"),
            (flags(&[("build", &["dir"])]), "`dir` is not a flag; only flags can be added"),
            (flags(&[("build", &["--farm", "other"])]), "`--farm` is not a flag of a command"),
            (flags(&[("build", &["--platform"])]), "a value is required for '--platform"),
        ] {
            let error = line(&["build"], &none, &table).unwrap_err();
            assert!(error.contains(words), "expected `{words}` in: {error}");
        }
        // Flags of other commands are looked at when these run.
        assert_eq!(line(&["build"], &none, &flags(&[("plan", &["--nonsense"])])).unwrap(), "build");
    }
}
