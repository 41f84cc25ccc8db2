//! How each of Python's tools fills the directory of packages.
//!
//! Invariant: what a lock file pins is installed as pinned, with hashes checked where the file has them.

use std::collections::BTreeMap;

use toml::Value;

use super::{
    super::{Error, found::strings, tree},
    PACKAGES, Project, requirements,
};

pub(super) const PIP_INSTALL: &str =
    "python3 -m pip install --no-compile --no-warn-script-location --root-user-action=ignore";

/// What a layer consists of.
pub(super) struct Layer {
    pub(super) tool: &'static str,
    pub(super) because: Vec<String>,
    /// The files that name the packages, in words.
    pub(super) named: String,
    pub(super) inputs: Vec<String>,
    pub(super) unversioned: Vec<String>,
    pub(super) files: BTreeMap<String, String>,
    /// Empty where nothing is needed; else ends with a line's end.
    pub(super) run: String,
    pub(super) tools: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// What makes Python's tools give the same bytes twice, and keep out of the home directory.
pub(super) fn variables() -> BTreeMap<String, String> {
    [
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_CACHE_DIR", "1"),
        ("POETRY_CACHE_DIR", "/tmp/poetry"),
        ("POETRY_VIRTUALENVS_IN_PROJECT", "true"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONHASHSEED", "0"),
        ("UV_CACHE_DIR", "/tmp/uv"),
        ("UV_LINK_MODE", "copy"),
        ("UV_PYTHON_DOWNLOADS", "never"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

impl Project<'_> {
    pub(super) fn layer(&self) -> Result<Layer, Error> {
        let mut layer = if tree::has(self.source, "uv.lock") {
            self.uv()?
        } else if tree::has(self.source, "poetry.lock") {
            self.poetry()?
        } else {
            self.pip()?
        };
        if self.is_package() && layer.tool != "pip" {
            layer.notes.push("`build-system.requires` is in no lock file: pin what stands there".into());
        }
        Ok(layer)
    }

    fn uv(&self) -> Result<Layer, Error> {
        self.check_lock("uv.lock", "uv lock")?;
        let members = tree::named(self.source, |name| name == "pyproject.toml");
        let mut key = members;
        key.push("uv.lock".to_owned());
        Ok(Layer {
            tool: "uv",
            because: strings(["`pyproject.toml` is a project", "`uv.lock` locks what it needs"]).into_iter().collect(),
            named: "`uv.lock`".into(),
            unversioned: key.clone(),
            inputs: key,
            files: BTreeMap::new(),
            run: format!(
                "uv export --locked --no-dev --no-emit-workspace --no-header --quiet -o .kiln/requirements.txt\n\
                 uv pip install --python \"$(command -v python3)\" --target {PACKAGES} --require-hashes --no-deps \
                 -r .kiln/requirements.txt\nrm -f {PACKAGES}/.lock\n"
            ),
            tools: strings(["python3", "uv"]),
            notes: Vec::new(),
        })
    }

    fn poetry(&self) -> Result<Layer, Error> {
        self.check_lock("poetry.lock", "poetry lock")?;
        let key = strings(["pyproject.toml", "poetry.lock"]);
        Ok(Layer {
            tool: "poetry",
            because: strings(["`pyproject.toml` is a project", "`poetry.lock` locks what it needs"])
                .into_iter()
                .collect(),
            named: "`poetry.lock`".into(),
            inputs: key,
            unversioned: strings(["pyproject.toml"]),
            files: BTreeMap::new(),
            run: format!(
                "poetry check --lock\npython3 -m venv --without-pip .venv\n\
                 poetry install --only main --no-root --no-interaction --no-ansi\n\
                 cp -a .venv/lib/python3*/site-packages/. {PACKAGES}/\n\
                 find {PACKAGES} -name __pycache__ -prune -exec rm -rf {{}} +\n\
                 rm -f {PACKAGES}/_virtualenv.py {PACKAGES}/_virtualenv.pth\n"
            ),
            tools: strings(["python3", "poetry"]),
            notes: Vec::new(),
        })
    }

    fn pip(&self) -> Result<Layer, Error> {
        let mut layer = Layer {
            tool: "pip",
            because: Vec::new(),
            named: String::new(),
            inputs: Vec::new(),
            unversioned: Vec::new(),
            files: BTreeMap::new(),
            run: String::new(),
            tools: strings(["python3"]),
            notes: Vec::new(),
        };
        if let Some(file) = &self.requirements {
            let found = requirements::read(self.source, file);
            let hashes = if found.hashed { " --require-hashes" } else { "" };
            layer.because.push(format!("`{file}` names what it needs"));
            layer.named = format!("`{file}`");
            layer.run = format!("{PIP_INSTALL}{hashes} --target {PACKAGES} -r {}\n", tree::shell_word(file));
            layer.inputs = found.files;
            layer.notes.extend(found.note);
        } else if let Some(first) = self.manifests.first() {
            layer.because.push(format!("`{first}` is a package"));
            layer.named = "`pyproject.toml`".into();
            let mut wanted = self.dependencies();
            let published = if self.dynamic() { super::distribution::requirements(self.source) } else { Vec::new() };
            let told = !published.is_empty();
            wanted.extend(published);
            if !wanted.is_empty() {
                layer.files.insert(".kiln/requirements.txt".into(), wanted.join("\n") + "\n");
                layer.run = format!("{PIP_INSTALL} --target {PACKAGES} -r .kiln/requirements.txt\n");
                layer.notes.push(
                    "nothing locks what the package needs, so two builds of one commit could differ: add a \
                     `requirements.txt` with hashes, or use uv or poetry"
                        .into(),
                );
            }
            if self.dynamic() && !told {
                layer.notes.push(
                    "`setup.py` or a build backend decides what the package needs, which only running it would tell: \
                     list what it needs in a `requirements.txt` with hashes, or it will not be in the archive"
                        .into(),
                );
            }
        }
        if layer.inputs.is_empty() {
            // The layer's command and files say all there is to it.
            layer.inputs = self.manifests.iter().filter(|m| *m == "pyproject.toml").cloned().collect();
            layer.unversioned = layer.inputs.clone();
        }
        Ok(layer)
    }

    /// What `[project]` says is needed.
    fn dependencies(&self) -> Vec<String> {
        let list = self.pyproject.get("project").and_then(|p| p.get("dependencies")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn dynamic(&self) -> bool {
        let project = self.pyproject.get("project");
        let dynamic = project.and_then(|p| p.get("dynamic")).and_then(Value::as_array);
        project.is_none() || dynamic.is_some_and(|d| d.iter().any(|v| v.as_str() == Some("dependencies")))
    }

    /// Refuses a lock file that lacks a package which `pyproject.toml` names.
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
        let wanted = self.dependencies().into_iter().map(|d| requirements::name(&d).to_owned());
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
