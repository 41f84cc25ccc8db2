//! Poetry: a project with its `poetry.lock`.
//!
//! Invariant: directories of the tree in the lock file are built by the bundle, and everything else is in the layer.

use toml::Value;

use super::{
    super::{Error, found::strings, tree},
    Project,
    layers::{Layer, from_environment},
    local::Local,
};

impl Project<'_> {
    pub(super) fn poetry(&self) -> Result<Layer, Error> {
        self.check_lock("poetry.lock", "poetry lock")?;
        let lock = tree::toml(self.source, "poetry.lock")?.unwrap_or_default();
        let mut key = strings(["pyproject.toml", "poetry.lock"]);
        key.extend(tree::all_of(self.source, &["poetry.toml"]));
        let mut unversioned = strings(["pyproject.toml", "poetry.lock"]);
        let mut locals: Vec<Local> = Vec::new();
        for package in lock.get("package").and_then(Value::as_array).into_iter().flatten() {
            let source = package.get("source");
            let field = |key: &str| source.and_then(|s| s.get(key)).and_then(Value::as_str).unwrap_or_default();
            let (kind, place) = (field("type"), field("url"));
            if kind != "directory" && kind != "file" {
                continue;
            }
            let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
            let Some(path) = tree::join("", place) else {
                return Err(Error::Manifest {
                    path: "poetry.lock".into(),
                    message: format!(
                        "`{name}` lies in `{place}`, outside the project: build the directory that holds both"
                    ),
                });
            };
            if kind == "file" {
                key.push(path);
                continue;
            }
            let found = Local::read(self.source, &path, Vec::new())?;
            let manifests = found.manifests(self.source);
            unversioned.extend(manifests.iter().filter(|path| path.ends_with(".toml")).cloned());
            key.extend(manifests);
            if in_production(package) {
                locals.push(found);
            }
        }
        if self.is_package() {
            locals.push(Local::read(self.source, "", Vec::new())?);
        }
        Ok(Layer {
            tool: "poetry",
            because: vec!["`pyproject.toml` is a project".into(), "`poetry.lock` locks its dependencies".into()],
            named: "`poetry.lock`".into(),
            inputs: key,
            unversioned,
            run: format!(
                "python3 -m venv --without-pip .venv\n\
                 poetry install --only main --no-root --no-directory --no-interaction --no-ansi\n{}",
                from_environment()
            ),
            tools: strings(["python3", "poetry"]),
            sources: self.is_application() || !self.is_package(),
            locals,
            ..Layer::default()
        })
    }
}

/// Whether a locked package is in the group `main` (older lock files call it a category), and not only in an extra.
fn in_production(package: &Value) -> bool {
    let groups = package.get("groups").and_then(Value::as_array);
    let main = match (groups, package.get("category").and_then(Value::as_str)) {
        (Some(groups), _) => groups.iter().any(|g| g.as_str() == Some("main")),
        (None, Some(category)) => category == "main",
        (None, None) => true,
    };
    main && package.get("optional").and_then(Value::as_bool) != Some(true)
}
