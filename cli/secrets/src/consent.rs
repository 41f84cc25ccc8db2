//! Which of the user's variables a project may have as secrets: the `kiln.toml` of a checkout does not decide that alone.
//!
//! Invariant: a variable that was not allowed for this project is neither read nor sent. Permissions given on a
//! terminal are stored for the project's directory, in a file that only the user can write.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Allowed names, separated by commas: for CI, where nobody can be asked.
const VARIABLE: &str = "KILN_SECRETS";

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    /// By the project's directory.
    #[serde(default)]
    allowed: BTreeMap<String, BTreeSet<String>>,
}

/// What a project may have.
#[derive(Debug)]
pub(super) struct Consent {
    project: String,
    named: BTreeSet<String>,
    path: Option<PathBuf>,
    file: File,
}

impl Consent {
    /// The permissions so far for the project in this directory, and those that this command grants.
    pub(super) fn of(project: &Path, named: impl IntoIterator<Item = String>) -> Self {
        let by_variable = std::env::var(VARIABLE).unwrap_or_default();
        let by_variable = by_variable.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let path = config_dir().map(|dir| dir.join("secrets.toml"));
        let file = path.as_deref().map(read).unwrap_or_default();
        let project = project.canonicalize().unwrap_or_else(|_| project.to_owned()).to_string_lossy().into_owned();
        Self { project, named: named.into_iter().chain(by_variable).collect(), path, file }
    }

    /// Returns if the project may have this variable; asks if there is a terminal.
    ///
    /// # Errors
    /// If it may not, with what would allow it.
    pub(super) fn check(&mut self, name: &str, step: &str) -> Result<(), Error> {
        if self.named.contains(name) || self.remembers(name) {
            return Ok(());
        }
        let refused = || {
            Error(format!(
                "step `{step}` asks for the variable `{name}`, which this project is not allowed to have; if you trust its `kiln.toml`, \
                 pass `--secret {name}` or set `{VARIABLE}={name}` (on a terminal, `kiln build` asks once)"
            ))
        };
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(refused());
        }
        let question = format!(
            "step `{}` of `{}` asks for your variable `{name}` and can do anything with it. Allow it from now on? [y/N] ",
            kiln_terminal::harmless(step),
            kiln_terminal::harmless(&self.project)
        );
        if !ask(&question) {
            return Err(refused());
        }
        self.named.insert(name.to_owned());
        self.remember(name);
        Ok(())
    }

    fn remembers(&self, name: &str) -> bool {
        self.file.allowed.get(&self.project).is_some_and(|names| names.contains(name))
    }

    /// Saves the permission. If that fails, `kiln` will ask again.
    fn remember(&mut self, name: &str) {
        let Some(path) = &self.path else { return };
        // Another command may have written it meanwhile.
        self.file = read(path);
        self.file.allowed.entry(self.project.clone()).or_default().insert(name.to_owned());
        if let Err(error) = write(path, &self.file) {
            kiln_terminal::say(&format!(
                "cannot remember that in `{}` ({error}); you will be asked again",
                path.display()
            ));
        }
    }
}

fn ask(question: &str) -> bool {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// A file that someone else can write grants nothing.
fn read(path: &Path) -> File {
    let is_own = std::fs::metadata(path).is_ok_and(|data| kiln_system::is_written_by_owner_alone(&data));
    let text = if is_own { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    toml::from_str(&text).unwrap_or_default()
}

fn write(path: &Path, file: &File) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let text = toml::to_string(file).map_err(std::io::Error::other)?;
    let new = directory.join(format!(".secrets.toml.{}", std::process::id()));
    kiln_system::private().create(true).truncate(true).write(true).open(&new)?.write_all(text.as_bytes())?;
    std::fs::rename(&new, path)
}

/// The directory for the user's decisions: `$XDG_CONFIG_HOME/kiln`, else `~/.config/kiln`.
fn config_dir() -> Option<PathBuf> {
    kiln_system::config().map(|dir| dir.join("kiln"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_for_one_project_and_in_a_file_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kiln/secrets.toml");
        let consent = |project: &str| Consent {
            project: project.to_owned(),
            named: BTreeSet::new(),
            path: Some(path.clone()),
            file: read(&path),
        };
        consent("/a").remember("TOKEN");
        assert!(
            consent("/a").remembers("TOKEN") && !consent("/a").remembers("OTHER") && !consent("/b").remembers("TOKEN")
        );
        assert_eq!(kiln_system::mode(&std::fs::metadata(&path).unwrap()), 0o600);
        kiln_system::set_mode(&path, 0o666).unwrap();
        assert!(!consent("/a").remembers("TOKEN"), "expected a file that others can write not to count");
    }
}
