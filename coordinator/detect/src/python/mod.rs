//! Python: uv, poetry, Pipenv and pip.
//!
//! The layer is a directory of installed packages rather than a virtual environment, whose files contain the path where
//! it was created. The bundle adds the project, and byte code whose validity does not depend on timestamps.

mod bundle;
mod crates;
mod distribution;
mod layers;
mod local;
mod pip;
pub(super) mod pipenv;
mod poetry;
mod requirements;
mod stamp;
mod uv;

use layers::Layer;
use toml::{Table, Value};

use super::{Detected, Error, Identity, found::artifact, staging::OUT, tree};
use kiln_plan::{ArtifactKind, Source, View};
pub(super) use uv::PACKAGE;

/// Where the layer has the packages.
const PACKAGES: &str = ".kiln/packages";
/// Where the layer has the tools that build the project itself.
const BACKEND: &str = ".kiln/backend";

/// The name and version in `pyproject.toml`, or in a source distribution's metadata.
pub(super) fn identity(source: &dyn Source) -> Identity {
    let stated = stated_identity(source);
    Identity {
        name: stated.name.or_else(|| distribution::field(source, "Name")),
        version: stated.version.or_else(|| distribution::field(source, "Version")),
    }
}

fn stated_identity(source: &dyn Source) -> Identity {
    let Ok(Some(root)) = tree::toml(source, "pyproject.toml") else { return Identity::default() };
    let field = |key: &str| {
        let poetry = root.get("tool").and_then(|t| t.get("poetry")).and_then(|p| p.get(key));
        let value = root.get("project").and_then(|p| p.get(key)).or(poetry);
        value.and_then(Value::as_str).map(str::to_owned)
    };
    Identity { name: field("name"), version: field("version") }
}

/// The file that lists production's requirements, if there is one.
pub(super) fn requirements_file(source: &dyn Source) -> Option<String> {
    requirements::main_file(source)
}

/// What the files make: a package or an application. A manifest that cannot be read counts, so that its error is reported.
pub(super) fn product(source: &dyn Source) -> Option<String> {
    let Ok(pyproject) = tree::toml(source, "pyproject.toml") else {
        return Some("`pyproject.toml` is there".to_owned());
    };
    let requirements = requirements::main_file(source);
    let listed = requirements.is_some() || tree::has(source, "Pipfile");
    let project = Project { source, pyproject: pyproject.unwrap_or_default(), requirements, manifests: Vec::new() };
    if project.is_package() {
        return Some("it is built as a package".to_owned());
    }
    let file = APPLICATION.into_iter().find(|file| *file != "Procfile" && tree::has(source, file));
    let described = listed || project.pyproject.contains_key("project");
    file.filter(|_| described).map(|file| format!("`{file}` starts an application"))
}

/// Detects a Python project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let pyproject = tree::toml(source, "pyproject.toml")?;
    let requirements = requirements::main_file(source);
    let manifests = tree::all_of(source, &["pyproject.toml", "setup.py", "setup.cfg"]);
    // A `pyproject.toml` may only contain a linter's settings.
    let built = pyproject.as_ref().is_some_and(|p| {
        p.contains_key("project")
            || p.contains_key("build-system")
            || p.get("tool").is_some_and(|t| t.get("poetry").is_some())
            || uv::is_workspace(p)
    });
    if !built && requirements.is_none() && tree::first_of(source, &["setup.py", "Pipfile"]).is_none() {
        return Ok(None);
    }
    let project = Project { source, pyproject: pyproject.unwrap_or_default(), requirements, manifests };
    let layer = project.layer()?;
    let identity = match layer.directory.as_str() {
        "" => identity(source),
        member => identity(&View::new(source, member)),
    };
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Ok(Some(Detected {
        language: format!("python ({})", layer.tool),
        steps: bundle::steps(source, &layer),
        because: layer.because,
        identity,
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "bundle", &[(OUT, ".")])],
        notes: layer.notes,
    }))
}

struct Project<'a> {
    source: &'a dyn Source,
    pyproject: Table,
    requirements: Option<String>,
    manifests: Vec<String>,
}

/// Files in the root that start an application.
const APPLICATION: [&str; 10] = [
    "Procfile",
    "app.py",
    "application.py",
    "asgi.py",
    "bot.py",
    "main.py",
    "manage.py",
    "run.py",
    "server.py",
    "wsgi.py",
];

impl Project<'_> {
    fn layer(&self) -> Result<Layer, Error> {
        let mut layer = if tree::has(self.source, "uv.lock") {
            self.uv()?
        } else if tree::has(self.source, "poetry.lock") {
            self.poetry()?
        } else if self.is_pipenv() {
            self.pipenv()?
        } else {
            self.pip()?
        };
        if layer.tool != "pip" && !layer.locals.is_empty() {
            layer.notes.push("`build-system.requires` is in no lock file: pin what stands there".into());
        }
        if tree::has(self.source, "versioneer.py") && self.is_package() {
            layer.notes.push(
                "`versioneer.py` asks git for the version, which steps do not see: the package will call itself \
                 `0+unknown`; setuptools_scm and hatch-vcs are told the version"
                    .into(),
            );
        }
        Ok(layer)
    }

    /// Whether Pipenv's files say what is installed. A list of requirements takes precedence over a manifest without a lock.
    fn is_pipenv(&self) -> bool {
        let has = |name: &str| tree::has(self.source, name);
        has("Pipfile") && (has(pipenv::LOCK) || self.requirements.is_none() && !self.is_package())
    }

    /// Whether the project is installed as a package, rather than only run from its sources.
    fn is_package(&self) -> bool {
        let tool = |name: &str, key: &str| {
            self.pyproject.get("tool").and_then(|t| t.get(name)).and_then(|t| t.get(key)).and_then(Value::as_bool)
        };
        if tool("uv", "package") == Some(false) || tool("poetry", "package-mode") == Some(false) {
            return false;
        }
        if self.pyproject.contains_key("build-system") || tree::has(self.source, "setup.py") {
            return true;
        }
        let Some(project) = self.pyproject.get("project").filter(|_| !tree::has(self.source, "uv.lock")) else {
            return false;
        };
        // If no build backend is named: a package has commands, build settings, or modules with its name.
        let settings = self.pyproject.get("tool").is_some_and(|t| t.get("setuptools").is_some());
        let commands = ["scripts", "gui-scripts", "entry-points"].iter().any(|key| project.get(key).is_some());
        let name = project.get("name").and_then(Value::as_str).unwrap_or_default();
        let module = requirements::normalised(name).replace('-', "_");
        let modules = [format!("{module}.py"), format!("{module}/__init__.py"), format!("src/{module}/__init__.py")];
        settings || commands || modules.iter().any(|path| tree::has(self.source, path))
    }

    /// Whether there is a program in the root, or in the requested member, that a package would not include.
    fn is_application(&self) -> bool {
        let directory = self.source.member().unwrap_or_default();
        APPLICATION.iter().any(|name| tree::has(self.source, &local::within(directory, name)))
    }

    /// Rejects a lock file that lacks a package named in `pyproject.toml`.
    fn check_lock(&self, lock: &str, command: &str) -> Result<(), Error> {
        let parsed = tree::toml(self.source, lock)?.unwrap_or_default();
        let packages = parsed.get("package").and_then(Value::as_array);
        let locked: Vec<String> = packages
            .into_iter()
            .flatten()
            .filter_map(|p| Some(requirements::normalised(p.get("name")?.as_str()?)))
            .collect();
        let poetry = self.pyproject.get("tool").and_then(|t| t.get("poetry")).and_then(|p| p.get("dependencies"));
        let poetry = poetry.and_then(Value::as_table).into_iter().flatten().map(|(name, _)| name.clone());
        let project = self.pyproject.get("project").and_then(|p| p.get("dependencies")).and_then(Value::as_array);
        let project = project.into_iter().flatten().filter_map(Value::as_str);
        let wanted = project.map(|d| requirements::name(d).to_owned());
        for name in wanted.chain(poetry.filter(|name| name != "python")) {
            if !locked.contains(&requirements::normalised(&name)) {
                return Err(Error::StaleLock {
                    lock: lock.to_owned(),
                    fact: format!("`pyproject.toml` depends on `{name}`, which it lacks"),
                    command: command.to_owned(),
                });
            }
        }
        Ok(())
    }
}
