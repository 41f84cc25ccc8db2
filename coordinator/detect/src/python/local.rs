//! Packages whose sources are in the tree: the project itself, members of its workspace, and directories that a
//! requirements file names.
//!
//! Invariant: their sources are not inputs of any step with network access. A layer installs their dependencies; the
//! bundle builds them.

use toml::{Table, Value};

use super::{
    super::{Error, found::strings, tree},
    distribution, requirements,
};
use kiln_plan::Source;

/// A package of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    /// Its directory; empty for the root.
    pub(super) directory: String,
    /// The requested extras.
    pub(super) extras: Vec<String>,
    /// Its name, if a file states it.
    pub(super) name: Option<String>,
    /// Its build requirements.
    pub(super) backend: Vec<String>,
    /// Its run-time requirements; `None` if only its build backend knows them.
    pub(super) needs: Option<Vec<String>>,
    /// Whether `[project]` lists its requirements.
    pub(super) stated: bool,
}

impl Local {
    /// Reads the package in a directory.
    pub(super) fn read(source: &dyn Source, directory: &str, extras: Vec<String>) -> Result<Self, Error> {
        let pyproject = tree::toml(source, &within(directory, "pyproject.toml"))?.unwrap_or_default();
        let project = pyproject.get("project").and_then(Value::as_table);
        let poetry = pyproject.get("tool").and_then(|t| t.get("poetry"));
        let name = project.and_then(|p| p.get("name")).or_else(|| poetry?.get("name")).and_then(Value::as_str);
        let stated = project.and_then(|project| stated(project, &extras));
        let published =
            || distribution::requirements(source, directory).filter(|list| !list.is_empty() && extras.is_empty());
        Ok(Local {
            directory: directory.to_owned(),
            name: name.map(requirements::normalised),
            backend: backend(source, directory, &pyproject),
            stated: stated.is_some(),
            needs: stated.or_else(published),
            extras,
        })
    }

    /// The directory in the form that pip expects.
    pub(super) fn path(&self) -> String {
        if self.directory.is_empty() { ".".to_owned() } else { format!("./{}", self.directory) }
    }

    /// The files that describe it.
    pub(super) fn manifests(&self, source: &dyn Source) -> Vec<String> {
        ["pyproject.toml", "setup.py", "setup.cfg"]
            .map(|name| within(&self.directory, name))
            .into_iter()
            .filter(|path| tree::has(source, path))
            .collect()
    }
}

/// Whether a directory is a package that pip can build.
pub(super) fn is_there(source: &dyn Source, directory: &str) -> bool {
    ["pyproject.toml", "setup.py"].iter().any(|name| tree::has(source, &within(directory, name)))
}

/// The path of a file in a directory.
pub(super) fn within(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The run-time requirements in `[project]` with these extras; `None` if they are left to the build backend.
fn stated(project: &Table, extras: &[String]) -> Option<Vec<String>> {
    let dynamic = |key: &str| {
        let list = project.get("dynamic").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|v| v.as_str() == Some(key)))
    };
    if dynamic("dependencies") || !extras.is_empty() && dynamic("optional-dependencies") {
        return None;
    }
    let own = project.get("name").and_then(Value::as_str).map(requirements::normalised).unwrap_or_default();
    let list = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut needs = list(project.get("dependencies"));
    let optional = project.get("optional-dependencies").and_then(Value::as_table);
    let mut wanted: Vec<String> = extras.iter().map(|e| requirements::normalised(e)).collect();
    let mut places = 0..;
    while let Some(extra) = places.next().and_then(|at| wanted.get(at).cloned()) {
        let of_extra = optional.into_iter().flatten().find(|(key, _)| requirements::normalised(key) == extra);
        for need in list(of_extra.map(|(_, value)| value)) {
            // An extra may refer to others of its own package.
            if requirements::normalised(requirements::name(&need)) == own {
                let more = requirements::extras(&need).into_iter().filter(|e| !wanted.contains(e)).collect::<Vec<_>>();
                wanted.extend(more);
            } else {
                needs.push(need);
            }
        }
    }
    Some(needs)
}

/// A package's build requirements: those in `[build-system]`, or pip's defaults without that section, and the
/// `setup_requires` of a `setup.py`.
fn backend(source: &dyn Source, directory: &str, pyproject: &Table) -> Vec<String> {
    let system = pyproject.get("build-system").and_then(|b| b.get("requires")).and_then(Value::as_array);
    let mut requires: Vec<String> = match system {
        Some(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => strings(["setuptools"]),
    };
    if requires.iter().any(|r| r.starts_with("setuptools")) {
        requires.extend(setup_requires(source, directory));
        if !requires.iter().any(|r| requirements::name(r) == "wheel") {
            requires.push("wheel".to_owned());
        }
    }
    // Additional requirements of these backends if the system lacks the tools.
    for (tool, others) in [("meson-python", &["ninja"][..]), ("scikit-build-core", &["cmake", "ninja"][..])] {
        if requires.iter().any(|r| requirements::normalised(requirements::name(r)) == tool) {
            requires.extend(others.iter().map(|other| (*other).to_owned()));
        }
    }
    let mut seen: Vec<String> = Vec::new();
    requires.retain(|r| {
        let new = !seen.contains(r);
        seen.push(r.clone());
        new
    });
    requires
}

/// `setup_requires` in `setup.py`, if it is a list of strings, and in `setup.cfg`.
fn setup_requires(source: &dyn Source, directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let script = tree::text(source, &within(directory, "setup.py")).unwrap_or_default();
    if let Some((_, rest)) = script.split_once("setup_requires") {
        let list = rest.trim_start_matches(['"', '\'', ' ']).strip_prefix(['=', ':']).map(str::trim_start);
        let list = list.and_then(|l| l.strip_prefix(['[', '(']).or_else(|| l.starts_with(['"', '\'']).then_some(l)));
        let end = |l: &str| l.find([']', ')']).or_else(|| l.find('\n')).unwrap_or(l.len());
        let list = list.map(|l| l.split_at(end(l)).0).unwrap_or_default();
        found.extend(list.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned));
    }
    let settings = tree::text(source, &within(directory, "setup.cfg")).unwrap_or_default();
    let mut inside = false;
    for line in settings.lines() {
        let value = match line.split_once('=') {
            Some((key, value)) if key.trim_end() == "setup_requires" => {
                inside = true;
                value
            }
            _ if inside && line.starts_with([' ', '\t']) => line,
            _ => {
                inside = false;
                continue;
            }
        };
        found.extend(value.split(';').next().map(str::trim).filter(|v| !v.is_empty() && inside).map(str::to_owned));
    }
    found
}
