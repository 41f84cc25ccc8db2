//! `--secret` and `--ssh`. Errors show no values, because one may be the secret itself.

use crate::csv::{fields, pairs};
use crate::error::Error;

/// A secret, and where its value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its id.
    pub id: String,
    /// Where its value is.
    pub from: Origin,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File(String),
    /// In a variable.
    Variable(String),
    /// In the variable of this name if it is set, or else in the file.
    Either(String),
}

/// Reads a value of `--secret`.
pub(crate) fn read(text: &str) -> Result<Secret, Error> {
    const FLAG: &str = "--secret";
    let expected = "expected `id=ID`, with `src=PATH` or `env=NAME`";
    let fields = pairs(text).map_err(|_| Error::value(FLAG, format!("a field without `=`; {expected}")))?;
    let get = |names: &[&str]| {
        let found = fields.iter().rev().find(|(name, _)| names.contains(&name.as_str()));
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    if let Some((name, _)) =
        fields.iter().find(|(name, _)| !matches!(name.as_str(), "id" | "src" | "source" | "env" | "type"))
    {
        // A value in place of a name is not shown whole.
        let name: String = name.chars().take(12).collect();
        return Err(Error::value(FLAG, format!("unknown field `{name}`; {expected}")));
    }
    let source = get(&["src", "source"]);
    let variable = get(&["env"]);
    let id = get(&["id"]).or_else(|| source.clone()).or_else(|| variable.clone());
    let id = id.ok_or_else(|| Error::value(FLAG, format!("`id` is missing; {expected}")))?;
    let from = match (get(&["type"]).as_deref(), source, variable) {
        (None | Some("file"), Some(path), None) => Origin::File(path),
        (None | Some("env"), None, Some(name)) => Origin::Variable(name),
        // With `type=env`, `src` is the variable.
        (Some("env"), Some(name), None) => Origin::Variable(name),
        (Some("env"), None, None) => Origin::Variable(id.clone()),
        (Some("file"), None, None) => Origin::File(id.clone()),
        (None, None, None) => Origin::Either(id.clone()),
        (None | Some("env" | "file"), _, _) => return Err(Error::value(FLAG, "both `src` and `env`; leave out one")),
        (Some(_), ..) => return Err(Error::value(FLAG, "unknown `type`; expected `file` or `env`")),
    };
    Ok(Secret { id, from })
}

/// An SSH agent or keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Its id.
    pub id: String,
    /// Paths of its socket or keys; none: `SSH_AUTH_SOCK`.
    pub paths: Vec<String>,
}

/// Reads a value of `--ssh`.
pub(crate) fn read_ssh(text: &str) -> Result<Ssh, Error> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    if id.is_empty() {
        return Err(Error::value("--ssh", "no id; expected `default` or `ID=PATH`"));
    }
    let paths = fields(paths).map_err(|reason| Error::value("--ssh", reason))?;
    Ok(Ssh { id: id.to_owned(), paths: paths.into_iter().filter(|path| !path.is_empty()).collect() })
}
