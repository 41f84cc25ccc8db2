//! What a program runs with, and where each value comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};

use crate::file::Entry;
use crate::{Place, is_secret, keys};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    CommandLine,
    /// A variable.
    Variable(String),
    /// The file.
    File(Place),
    /// The program.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::Variable(name) => write!(f, "`{name}`"),
            Self::File(place) => write!(f, "{place}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name, as in the file.
    pub name: String,
    /// Its values; several only for a list.
    pub values: Vec<String>,
    /// Where they come from.
    pub source: Source,
    kind: Kind,
    is_secret: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    One,
    List,
}

/// All options that have a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// The options, in the order of `--help`.
    pub all: Vec<Setting>,
}

impl Settings {
    pub(crate) fn of(command: &Command, matches: &ArgMatches, file: Option<PathBuf>, entries: &[&Entry]) -> Self {
        let of = |(name, arg): (&str, &clap::Arg)| {
            let id = arg.get_id().as_str();
            let values: Vec<String> = matches.get_raw(id)?.map(|value| value.to_string_lossy().into_owned()).collect();
            let entry = entries.iter().find(|entry| entry.id == id);
            let source = match (entry, matches.value_source(id)?) {
                (Some(entry), _) => Source::File(entry.place.clone()),
                (None, ValueSource::CommandLine) => Source::CommandLine,
                (None, ValueSource::EnvVariable) => {
                    Source::Variable(arg.get_env().unwrap_or_default().to_string_lossy().into_owned())
                }
                (None, _) => Source::Default,
            };
            let kind = match arg.get_action() {
                ArgAction::SetTrue => Kind::Flag,
                ArgAction::Append => Kind::List,
                _ => Kind::One,
            };
            Some(Setting { name: name.to_owned(), values, source, kind, is_secret: is_secret(arg) })
        };
        Self { file, all: keys(command).filter_map(of).collect() }
    }

    /// The names of the options whose values differ from those of `earlier`.
    pub fn changed_since(&self, earlier: &Self) -> Vec<String> {
        let values = |settings: &Self| -> BTreeMap<String, Vec<String>> {
            settings.all.iter().map(|setting| (setting.name.clone(), setting.values.clone())).collect()
        };
        let (now, before) = (values(self), values(earlier));
        let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
        names.into_iter().filter(|name| now.get(*name) != before.get(*name)).cloned().collect()
    }
}

/// What a later configuration changes in a program that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Options that now have another value.
    pub applied: Vec<String>,
    /// Options whose new value takes effect after a restart.
    pub late: Vec<String>,
}

impl Settings {
    /// Takes over the values of the options that are named; the others stay as the program was started with.
    pub fn take_over(&mut self, new: Self, reloaded: &[&str]) -> Change {
        let (applied, late): (Vec<String>, _) =
            new.changed_since(self).into_iter().partition(|name| reloaded.contains(&name.as_str()));
        self.all.retain(|setting| !applied.contains(&setting.name));
        self.all.extend(new.all.into_iter().filter(|setting| applied.contains(&setting.name)));
        Change { applied, late }
    }
}

impl Setting {
    /// Its value in TOML.
    fn toml(&self) -> String {
        let quoted = |value: &String| toml::Value::String(value.clone()).to_string();
        match (self.kind, self.values.first()) {
            (Kind::List, _) => format!("[{}]", self.values.iter().map(quoted).collect::<Vec<_>>().join(", ")),
            (Kind::Flag, Some(value)) => value.clone(),
            (Kind::One, Some(value)) => quoted(value),
            (_, None) => "\"\"".to_owned(),
        }
    }
}

impl fmt::Display for Settings {
    /// As a file that can be used, with where each value comes from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for setting in &self.all {
            let (name, source) = (&setting.name, &setting.source);
            match setting.is_secret {
                true => writeln!(f, "# {name} is set and not shown  # {source}")?,
                false => writeln!(f, "{name} = {}  # {source}", setting.toml())?,
            }
        }
        Ok(())
    }
}
