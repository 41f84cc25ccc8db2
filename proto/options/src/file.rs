//! The file: each key is an option without the dashes before it.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::DeValue;

use crate::document::{Document, kind};
use crate::{Error, Place, alone, beside, is_path, is_secret, keys};

/// A configuration file, of which each value by itself is valid.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    /// In alphabetic order.
    pub entries: Vec<Entry>,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Entry {
    /// clap's name of the option.
    pub id: String,
    /// The key.
    pub name: String,
    pub place: Place,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Flag(bool),
    Values(Vec<String>),
}

impl Entry {
    /// As it would stand on the command line.
    pub fn arguments(&self) -> Vec<String> {
        let name = &self.name;
        match &self.value {
            Value::Flag(false) => Vec::new(),
            Value::Flag(true) => vec![format!("--{name}")],
            Value::Values(values) => values.iter().map(|value| format!("--{name}={value}")).collect(),
        }
    }
}

impl File {
    /// Reads a file for a program.
    ///
    /// # Errors
    /// If it cannot be read, others can write it, or something in it is wrong.
    pub fn read(path: &Path, command: &Command) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let document = Document::new(path, text);
        let table = document.table()?;
        let known: Vec<(&str, &Arg)> = keys(command).collect();
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let mut entries = Vec::new();
        let mut has_secret = false;
        for (key, value) in &table {
            let Some((name, arg)) = known.iter().find(|(name, _)| *name == key.get_ref().as_ref()) else {
                return Err(document.unknown(key, &names, ""));
            };
            let place = document.place(key);
            let value =
                of(path, name, arg, value).map_err(|reason| Error::Invalid { place: document.place(value), reason })?;
            let entry = Entry { id: arg.get_id().to_string(), name: (*name).to_owned(), place, value };
            check(command, &entry)?;
            has_secret |= is_secret(arg);
            entries.push(entry);
        }
        closed(path, has_secret)?;
        Ok(Self { path: path.to_owned(), entries })
    }

    /// Which options it has, for a message.
    pub fn shown(&self) -> String {
        let path = self.path.display();
        let options: Vec<String> =
            self.entries.iter().map(|entry| format!("`{}` (line {})", entry.name, entry.place.line)).collect();
        if options.is_empty() {
            format!("`{path}` has no options")
        } else {
            format!("`{path}` has {}", options.join(", "))
        }
    }
}

/// The values of a key, or what was expected.
fn of(file: &Path, name: &str, arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    let value = value.get_ref();
    let wrong = |expected: &str| format!("`{name}` must be {expected}, found {}", kind(value));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
        (ArgAction::SetTrue, _) => Err(wrong("`true` or `false`")),
        (ArgAction::Append, DeValue::Array(values)) => {
            let one = |value: &Spanned<DeValue<'_>>| {
                let scalar = scalar(file, arg, value.get_ref());
                scalar.map_err(|expected| {
                    format!("each element of `{name}` must be {expected}, found {}", kind(value.get_ref()))
                })
            };
            values.iter().map(one).collect::<Result<_, _>>().map(Value::Values)
        }
        (ArgAction::Append, _) => Err(wrong("an array of strings")),
        (_, value) => {
            scalar(file, arg, value).map(|value| Value::Values(vec![value])).map_err(|expected| wrong(&expected))
        }
    }
}

fn scalar(file: &Path, arg: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    let takes_text = is_path(arg) || arg.get_value_parser().type_id() == std::any::TypeId::of::<String>();
    match value {
        DeValue::String(text) if is_path(arg) => Ok(beside(file, text)),
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if !takes_text && number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) if !takes_text => Ok(number.as_str().to_owned()),
        _ => {
            let what = arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str());
            Err(format!("a string ({what})"))
        }
    }
}

/// Has the option's own parser read the values.
fn check(command: &Command, entry: &Entry) -> Result<(), Error> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let line = std::iter::once(command.get_name().to_owned()).chain(entry.arguments());
    let Err(error) = alone(command).try_get_matches_from(line) else { return Ok(()) };
    let is_about_value = matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation);
    if !is_about_value {
        // Options that need or exclude each other are compared when all of them are known.
        return Ok(());
    }
    let name = &entry.name;
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) if !value.is_empty() => format!("value `{value}`"),
        _ => "empty value".to_owned(),
    };
    let why = std::error::Error::source(&error).map(ToString::to_string);
    let why = why.or_else(|| match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            Some(format!("expected one of `{}`", valid.join("`, `")))
        }
        _ => None,
    });
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    Err(Error::Invalid { place: entry.place.clone(), reason: format!("invalid {value} for `{name}`{why}") })
}

/// Refuses a file that everybody on the machine can write, or read if it has a secret.
#[cfg(unix)]
fn closed(path: &Path, has_secret: bool) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let about = std::fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mode = about.permissions().mode();
    let open = |reason, fix| Err(Error::Open { path: path.to_owned(), reason, fix });
    match (mode & 0o002 != 0, has_secret && mode & 0o004 != 0) {
        (true, _) => open("can be written by every user of this machine", "o-w"),
        (_, true) => open("has a secret and can be read by every user of this machine", "o-rwx"),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn closed(_: &Path, _: bool) -> Result<(), Error> {
    Ok(())
}
