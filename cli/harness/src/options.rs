//! Programs with a configuration file: how they are started, and a property test of their options.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::{ArgAction, CommandFactory, FromArgMatches};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// A directory with these files, which nobody else can read.
pub fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    dir
}

/// A program of Kiln's with this configuration file and these further arguments, and without variables of its own.
pub fn configured(program: &str, file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--config").arg(file).args(arguments).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KILN_")) {
        command.env_remove(variable);
    }
    command
}

/// Values, of which each option must take one at least.
const SAMPLES: [&str; 21] = [
    "/some/where",
    "word",
    "https://example.com:8980",
    "redis://cache:6379",
    "127.0.0.1:9",
    "5",
    "30s",
    "12h",
    "1GiB",
    "64MiB",
    "0.5",
    "2%",
    "always",
    "1000,30d",
    "linux/arm64,cpus=16,memory=64GiB,label.disk=ssd",
    "linux/amd64",
    "gpu=a100",
    "*.example",
    "10.0.0.0/8",
    "1000000:1048576",
    "info,kiln=debug",
];
/// Options that are not in files.
const NOT_IN_FILE: [&str; 4] = ["config", "check-config", "help", "version"];

/// An option, with values that it takes.
#[derive(Debug, Clone)]
struct Known {
    name: String,
    is_flag: bool,
    is_list: bool,
    values: Vec<String>,
}

/// One option with what it is set to.
#[derive(Debug, Clone)]
struct Given {
    on_line: Vec<String>,
    in_file: String,
}

/// What became of reading options: their names and values, or what clap says.
type Outcome = Result<Vec<(String, Vec<String>)>, Option<clap::error::ErrorKind>>;

fn read<A: CommandFactory + FromArgMatches>(line: &[String]) -> Outcome {
    let name = A::command().get_name().to_owned();
    let line: Vec<OsString> = std::iter::once(&name).chain(line).map(OsString::from).collect();
    match kiln_options::read::<A>(&line) {
        Ok(read) => Ok(read.settings.all.into_iter().map(|setting| (setting.name, setting.values)).collect()),
        Err(kiln_options::Error::Options { error, .. }) => Err(Some(error.kind())),
        Err(_) => Err(None),
    }
}

/// All options of a program that no variable sets here.
fn known<A: CommandFactory + FromArgMatches>() -> Vec<Known> {
    let command = A::command();
    let takes = |name: &str, value: &str| {
        use clap::error::ErrorKind;
        let outcome = read::<A>(&[format!("--{name}={value}")]);
        !matches!(outcome, Err(Some(ErrorKind::InvalidValue | ErrorKind::ValueValidation)))
    };
    let is_set = |arg: &clap::Arg| arg.get_env().is_some_and(|name| std::env::var_os(name).is_some());
    let options = command.get_arguments().filter(|arg| !is_set(arg));
    let options = options.filter_map(|arg| Some((arg.get_long()?, arg)));
    options
        .filter(|(name, _)| !NOT_IN_FILE.contains(name))
        .map(|(name, arg)| {
            let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
            let possible: Vec<String> =
                arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            // Paths of a file are relative to it, and those of the command line are not.
            let names = arg.get_value_names().unwrap_or_default();
            let is_path = names.iter().any(|name| name.contains("FILE") || name.contains("DIR"));
            let samples =
                SAMPLES.into_iter().filter(|sample| !is_path || sample.starts_with('/') || sample.contains("://"));
            let samples = samples.map(str::to_owned).chain(possible);
            let values = samples.filter(|value| is_flag || takes(name, value)).collect();
            Known { name: name.to_owned(), is_flag, is_list: matches!(arg.get_action(), ArgAction::Append), values }
        })
        .collect()
}

impl Known {
    fn given(&self, picks: &[Index]) -> Given {
        let name = self.name.clone();
        if self.is_flag {
            let is_on = picks.first().is_none_or(|pick| pick.index(2) == 0);
            let on_line = if is_on { vec![format!("--{name}")] } else { Vec::new() };
            return Given { in_file: format!("{name} = {is_on}"), on_line };
        }
        let picked: Vec<&String> = match picks {
            [] => vec![&self.values[0]],
            picks if self.is_list => picks.iter().map(|pick| pick.get(&self.values)).collect(),
            [pick, ..] => vec![pick.get(&self.values)],
        };
        let quoted: Vec<String> = picked.iter().map(|value| format!("{value:?}")).collect();
        let value = if self.is_list { format!("[{}]", quoted.join(", ")) } else { quoted[0].clone() };
        let on_line = picked.iter().map(|value| format!("--{name}={value}")).collect();
        Given { in_file: format!("{name} = {value}"), on_line }
    }
}

/// What options on the command line, and the same ones in a file, become.
fn both<A: CommandFactory + FromArgMatches>(given: &[Given]) -> (Outcome, Outcome) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("program.toml");
    let lines: Vec<&str> = given.iter().map(|given| given.in_file.as_str()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let on_line: Vec<String> = given.iter().flat_map(|given| given.on_line.clone()).collect();
    (read::<A>(&on_line), read::<A>(&[format!("--config={}", file.display())]))
}

/// Checks that every option of a program is the same in a file as on the command line, by itself and together with others: its values, and
/// what it needs and excludes.
pub fn round_trip<A: CommandFactory + FromArgMatches>() {
    let known = known::<A>();
    for option in &known {
        assert!(!option.values.is_empty(), "expected a sample for `--{}`: add one to `SAMPLES`", option.name);
    }
    let required: Vec<String> = A::command()
        .get_arguments()
        .filter(|arg| arg.is_required_set())
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .collect();
    let is_required = |option: &&Known| required.contains(&option.name);
    let base: Vec<Given> = known.iter().filter(is_required).map(|option| option.given(&[])).collect();
    let rest: Vec<&Known> = known.iter().filter(|option| !is_required(option)).collect();
    let with = |options: &[&Known]| {
        let given: Vec<Given> = base.iter().cloned().chain(options.iter().map(|option| option.given(&[]))).collect();
        both::<A>(&given)
    };
    for option in &rest {
        // Some need another one.
        let beside = std::iter::once(Vec::new())
            .chain(rest.iter().filter(|other| other.name != option.name).map(|other| vec![*other]));
        let accepted = beside.map(|beside| with(&[beside, vec![option]].concat())).find(|(line, _)| line.is_ok());
        let (line, file) =
            accepted.unwrap_or_else(|| panic!("expected `--{}` to be accepted with at most one other", option.name));
        assert_eq!(file, line, "expected `{}` to be the same in a file", option.name);
    }
    let picks = proptest::collection::vec(any::<Index>(), 1..3);
    let several = proptest::collection::vec((any::<Index>(), picks), 1..5);
    let outcome = TestRunner::new(Config::with_cases(200)).run(&several, |several| {
        let mut given = base.clone();
        let mut names = std::collections::BTreeSet::new();
        for (which, picks) in &several {
            let option = which.get(&rest);
            if names.insert(&option.name) {
                given.push(option.given(picks));
            }
        }
        let (line, file) = both::<A>(&given);
        prop_assert_eq!(file, line, "of {:?}", given);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
