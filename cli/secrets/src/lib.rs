//! Collects the secrets that a project's steps need, and puts them into the request and nowhere else.
//!
//! Invariant: only secrets that a step needs are read, and variables only if the user allows this project to have them;
//! missing secrets are reported before anything runs.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod consent;

use std::path::{Path, PathBuf};

use kiln_planner::project;
use kiln_proto::secret;
use kiln_proto::v1::Secret;
use zeroize::Zeroizing;

use consent::Consent;

/// A secret that cannot be had, in words for the user, with the fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// `--secret NAME=FILE`, or `--secret NAME` for a variable.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    name: String,
    path: Option<PathBuf>,
}

impl Named {
    /// Errors do not show an invalid text, because it may be the secret itself.
    fn parse(text: &str) -> Result<Self, Error> {
        match text.split_once('=') {
            None if secret::is_name(text) && std::env::var_os(text).is_some() => {
                Ok(Self { name: text.to_owned(), path: None })
            }
            None => Err(Error(
                "`--secret` expects the name of a variable that is set, or `NAME=FILE` with a file that contains the value"
                    .to_owned(),
            )),
            Some((name, path)) if secret::is_name(name) && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: Some(path.into()) })
            }
            _ => {
                Err(Error("`--secret` expects `NAME`, or `NAME=FILE` with a file that contains the value".to_owned()))
            }
        }
    }
}

/// The secrets that the steps of the project at `root` need: from the named files, or else from this command's
/// variables as far as the project may have them.
///
/// # Errors
/// If a secret is missing, invalid or not allowed, or if one is named that no step needs.
pub fn gather(root: &Path, named: &[String]) -> Result<Vec<Secret>, Error> {
    let files: Vec<Named> = named.iter().map(|text| Named::parse(text)).collect::<Result<_, _>>()?;
    let variables = files.iter().filter(|one| one.path.is_none()).map(|one| one.name.clone());
    let mut consent = Consent::of(root, variables);
    let asked = asked(root);
    if let Some(file) = files.iter().find(|file| !asked.iter().any(|(name, _)| *name == file.name)) {
        let words =
            format!("no step asks for the secret `{}`; name it in a step's `secrets` in `kiln.toml`", file.name);
        return Err(Error(words));
    }
    asked
        .into_iter()
        .map(|(name, step)| {
            let from = files.iter().find_map(|file| file.path.as_deref().filter(|_| file.name == name));
            let value = match (from, std::env::var_os(&name)) {
                (Some(path), _) => Some(read(&name, path)?),
                (None, Some(value)) => {
                    consent.check(&name, &step)?;
                    Some(text(&name, value.into_encoded_bytes())?)
                }
                (None, None) => None,
            };
            let value = value.ok_or_else(|| {
                Error(format!(
                    "step `{step}` asks for the secret `{name}`: set the variable `{name}`, or pass `--secret {name}=FILE`"
                ))
            })?;
            if let Some(problem) = secret::problem(&value) {
                return Err(Error(format!("the secret `{name}` of step `{step}` {problem}")));
            }
            Ok(Secret { name, value: value.to_string() })
        })
        .collect()
}

/// The secrets that are named, whatever asks for them.
///
/// # Errors
/// If one cannot be read.
pub fn named(texts: &[String]) -> Result<Vec<Secret>, Error> {
    let value = |text: &String| {
        let Named { name, path } = Named::parse(text)?;
        let value = match path {
            Some(path) => read(&name, &path)?,
            None => self::text(&name, std::env::var_os(&name).unwrap_or_default().into_encoded_bytes())?,
        };
        match secret::problem(&value) {
            Some(problem) => Err(Error(format!("the secret `{name}` {problem}"))),
            None => Ok(Secret { name, value: value.to_string() }),
        }
    };
    texts.iter().map(value).collect()
}

/// The names of the secrets that a step of the project at `root` asks for.
pub fn names_of_step(root: &Path, step: &str) -> Vec<String> {
    let content = std::fs::read(root.join("kiln.toml")).unwrap_or_default();
    let asked = project::secrets(&content).unwrap_or_default().into_iter();
    asked.filter(|(of, _)| *of == step).map(|(_, name)| name).collect()
}

/// The names, each once, with the first step that needs it. Errors in a `kiln.toml` are reported by the farm.
fn asked(root: &Path) -> Vec<(String, String)> {
    let content = std::fs::read(root.join("kiln.toml")).unwrap_or_default();
    let mut asked: Vec<(String, String)> = Vec::new();
    for (step, name) in project::secrets(&content).unwrap_or_default() {
        if !asked.iter().any(|(known, _)| *known == name) {
            asked.push((name, step));
        }
    }
    asked
}

/// A file's content without the final newline, which editors add.
fn read(name: &str, path: &Path) -> Result<Zeroizing<String>, Error> {
    let content = std::fs::read(path)
        .map_err(|error| Error(format!("cannot read the secret `{name}` from `{}`: {error}", path.display())))?;
    let mut value = text(name, content)?;
    if value.ends_with('\n') {
        value.pop();
        if value.ends_with('\r') {
            value.pop();
        }
    }
    Ok(value)
}

fn text(name: &str, bytes: Vec<u8>) -> Result<Zeroizing<String>, Error> {
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        Error(format!("the secret `{name}` is not valid UTF-8; expected text, such as its base64"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_the_place_of_a_file_is_not_shown() {
        let file = Named::parse("A=/run/token").unwrap();
        assert_eq!(file, Named { name: "A".into(), path: Some("/run/token".into()) });
        assert_eq!(Named::parse("PATH").unwrap(), Named { name: "PATH".into(), path: None });
        let words = Named::parse("hunter22").unwrap_err().to_string();
        assert!(!words.contains("hunter22"), "{words}");
    }
}
