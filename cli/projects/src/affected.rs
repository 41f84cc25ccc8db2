//! The projects whose builds differ between a commit and the working tree.

use std::path::{Path, PathBuf};

use kiln_planner::plan;
use serde_json::{Value, json};

use crate::several::no_project;
use crate::{Base, Change, Key, Project};

/// Files named of a project that changed.
const SHOWN: usize = 3;

/// What became of a project since a commit.
#[derive(Debug)]
pub enum Fate {
    /// Nothing that its build depends on changed.
    Same,
    /// Its build depends on something that changed.
    Changed(Change),
    /// It is not in the commit.
    New,
    /// It could not be planned at the commit.
    Repaired(String),
    /// It cannot be planned now.
    Broken(String),
    /// There is no project in the directory.
    None(String),
}

impl Fate {
    /// Whether the project is to be built: one that cannot be planned is, so that it fails.
    pub fn is_affected(&self) -> bool {
        !matches!(self, Self::Same | Self::None(_))
    }

    /// The word for it, for scripts.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Same => "unchanged",
            Self::Changed(_) => "changed",
            Self::New => "new",
            Self::Repaired(_) => "repaired",
            Self::Broken(_) => "broken",
            Self::None(_) => "no project",
        }
    }
}

/// A directory and what became of its project.
#[derive(Debug)]
pub struct Affected {
    /// The directory, as given.
    pub directory: PathBuf,
    /// What became of it.
    pub fate: Fate,
}

/// What became of each directory's project since the commit.
pub fn since(base: &Base, directories: &[PathBuf]) -> Vec<Affected> {
    directories.iter().map(|directory| Affected { directory: directory.clone(), fate: fate(base, directory) }).collect()
}

fn fate(base: &Base, directory: &Path) -> Fate {
    let now = match keyed(directory) {
        Ok(now) => now,
        Err(Unplanned::Nothing(message)) => return Fate::None(message),
        Err(Unplanned::Broken(message)) => return Fate::Broken(message),
    };
    let Some(there) = base.at(directory) else { return Fate::New };
    match keyed(&there) {
        Ok(before) => now.since(&before).map_or(Fate::Same, Fate::Changed),
        Err(Unplanned::Nothing(_)) => Fate::New,
        Err(Unplanned::Broken(message)) => Fate::Repaired(message),
    }
}

enum Unplanned {
    Nothing(String),
    Broken(String),
}

fn keyed(directory: &Path) -> Result<Key, Unplanned> {
    let project = Project::open(directory).map_err(|error| Unplanned::Broken(error.to_string()))?;
    let options = plan::Options {
        // The version is in names of artifacts, and no reason to build.
        describe: None,
        ..project.options()
    };
    match project.plan_for(&options, plan::Scope::Build) {
        Ok(plan) => Ok(Key::of(&project, &plan)),
        Err(error) => Err(match no_project(&error) {
            Some(words) => Unplanned::Nothing(words),
            None => Unplanned::Broken(error.to_string()),
        }),
    }
}

impl Affected {
    /// Why it is affected, or why it cannot be; `None` if nothing changed.
    pub fn why(&self) -> Option<String> {
        Some(match &self.fate {
            Fate::Same => return None,
            Fate::Changed(change) if change.files.is_empty() => "its plan changed".to_owned(),
            Fate::Changed(change) => {
                let more = change.files.len().saturating_sub(SHOWN);
                let files: Vec<String> = change.files.iter().take(SHOWN).map(|file| format!("`{file}`")).collect();
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("{}{more} changed", files.join(", "))
            }
            Fate::New => "new".to_owned(),
            Fate::Repaired(_) => "could not be planned before".to_owned(),
            Fate::Broken(message) => format!("cannot be planned: {message}"),
            Fate::None(message) => message.clone(),
        })
    }

    /// The same for programs.
    pub fn object(&self) -> Value {
        let (steps, files) = match &self.fate {
            Fate::Changed(change) => (change.steps.clone(), change.files.clone()),
            _ => Default::default(),
        };
        let message = match &self.fate {
            Fate::Repaired(message) | Fate::Broken(message) | Fate::None(message) => message.as_str(),
            Fate::Same | Fate::Changed(_) | Fate::New => "",
        };
        json!({
            "directory": self.directory.to_string_lossy(),
            "affected": self.fate.is_affected(),
            "reason": self.fate.word(),
            "steps": steps,
            "files": files,
            "message": message,
        })
    }
}
