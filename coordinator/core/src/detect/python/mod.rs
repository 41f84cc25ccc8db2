//! Python: uv, poetry and pip.
//!
//! The layer is a directory of installed packages (`pip install --target`), not a virtual environment, whose files
//! hold the path where it was made. The bundle adds the project, and byte code whose validity does not hang on times.

mod distribution;
mod layers;
mod requirements;

use toml::{Table, Value};

use super::{
    Detected, Error, Identity,
    found::{artifact, fetch_step, strings},
    staging::{OUT, move_tree},
    tree,
};
use crate::plan::{ArtifactKind, Source, Step};

/// Where the layer holds the packages.
const PACKAGES: &str = ".kiln/packages";
/// Where the layer holds the tools that build the project itself.
const BACKEND: &str = ".kiln/backend";

/// The name and version that `pyproject.toml` says, or the metadata of a source distribution.
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

/// A Python project in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let pyproject = tree::toml(source, "pyproject.toml")?;
    let requirements = requirements::main_file(source);
    let manifests = tree::all_of(source, &["pyproject.toml", "setup.py", "setup.cfg"]);
    // A `pyproject.toml` may hold nothing but a linter's settings.
    let built = pyproject.as_ref().is_some_and(|p| {
        p.contains_key("project")
            || p.contains_key("build-system")
            || p.get("tool").is_some_and(|t| t.get("poetry").is_some())
    });
    if !built && requirements.is_none() && !tree::has(source, "setup.py") {
        return Ok(None);
    }
    let project = Project { source, pyproject: pyproject.unwrap_or_default(), requirements, manifests };
    let mut layer = project.layer()?;
    let package = project.is_package();
    let requires = project.backend();
    if package {
        let words: Vec<String> = requires.iter().map(|r| tree::shell_word(r)).collect();
        layer.run.push_str(&format!("{} --target {BACKEND} {}\n", layers::PIP_INSTALL, words.join(" ")));
    }
    let mut steps: Vec<Step> = Vec::new();
    if !layer.run.is_empty() {
        let why = format!("installs what {} names, into a directory of its own", layer.named);
        let mut deps = fetch_step("deps", &why, format!("mkdir -p {PACKAGES} {BACKEND}\n{}", layer.run));
        (deps.inputs, deps.unversioned, deps.files) = (layer.inputs, layer.unversioned, layer.files);
        deps.inputs.extend(tree::all_of(source, &[".python-version"]));
        if deps.inputs.is_empty() {
            // No inputs at all would be the whole tree.
            deps.inputs = strings(["!**"]);
        }
        (deps.env, deps.tools) = (layers::variables(), layer.tools);
        deps.outputs = strings([PACKAGES, BACKEND]);
        steps.push(deps);
    }
    let mut bundle = Step::new("bundle", bundle(package, !steps.is_empty()));
    bundle.why = match package {
        true => "installs the project beside its packages, with reproducible byte code".into(),
        false => "puts the sources and their packages together, with reproducible byte code".into(),
    };
    bundle.needs = steps.iter().map(|s| s.name.clone()).collect();
    (bundle.env, bundle.tools, bundle.outputs) = (layers::variables(), strings(["python3"]), strings([OUT]));
    steps.push(bundle);
    let identity = identity(source);
    let name = identity.name.clone().unwrap_or_else(|| directory_name.to_owned());
    Ok(Some(Detected {
        language: format!("python ({})", layer.tool),
        because: layer.because,
        identity,
        steps,
        artifacts: vec![artifact(&name, ArtifactKind::Archive, "bundle", &[(OUT, ".")])],
        notes: layer.notes,
    }))
}

/// Python that makes what stands beside a command's directory importable.
const FIND_PACKAGES: &str =
    "import os, sys; sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))";

/// With a package: everything importable in the archive's root, commands in `bin`. Without: the sources in the root,
/// the packages in `packages`.
fn bundle(package: bool, layered: bool) -> String {
    let mut run = String::new();
    if package {
        run.push_str(&format!(
            "mkdir -p .kiln\ncp -a {PACKAGES} {OUT}\n\
             PYTHONPATH=/build/{BACKEND} {} --no-index --no-deps --no-build-isolation --upgrade --target {OUT} .\n",
            layers::PIP_INSTALL
        ));
        run.push_str(&format!("rm -f {OUT}/*.dist-info/direct_url.json\n"));
        // Commands find the packages beside them wherever the archive is unpacked.
        run.push_str(&format!(
            "for command in {OUT}/bin/*; do\n\
               if [ -f \"$command\" ] && head -n 1 \"$command\" | grep -q '^#!.*python'; then\n\
                 sed -i -e '1s,.*,#!/usr/bin/env python3,' -e '1a {FIND_PACKAGES}' \"$command\"\n\
               fi\n\
             done\n"
        ));
    } else {
        run.push_str(&move_tree(&[]));
        if layered {
            run.push_str(&format!("mv {PACKAGES} {OUT}/packages\n"));
        }
    }
    // A package may carry files for other versions of Python, which this one cannot compile.
    run.push_str(&format!(
        "find {OUT} -name __pycache__ -prune -exec rm -rf {{}} +\n\
         python3 -m compileall -q -s {OUT} --invalidation-mode unchecked-hash {OUT} || true\n"
    ));
    run
}

struct Project<'a> {
    source: &'a dyn Source,
    pyproject: Table,
    requirements: Option<String>,
    manifests: Vec<String>,
}

impl Project<'_> {
    /// Whether the project is installed as a package, and not only run from its sources.
    fn is_package(&self) -> bool {
        let tool = |name: &str, key: &str| {
            self.pyproject.get("tool").and_then(|t| t.get(name)).and_then(|t| t.get(key)).and_then(Value::as_bool)
        };
        if tool("uv", "package") == Some(false) || tool("poetry", "package-mode") == Some(false) {
            return false;
        }
        let setup = tree::has(self.source, "setup.py");
        let uv = tree::has(self.source, "uv.lock");
        self.pyproject.contains_key("build-system") || setup || self.pyproject.contains_key("project") && !uv
    }

    /// What builds the package: what `[build-system]` requires, else what pip takes where it says nothing.
    fn backend(&self) -> Vec<String> {
        let system = self.pyproject.get("build-system").and_then(|b| b.get("requires")).and_then(Value::as_array);
        let mut requires: Vec<String> = match system {
            Some(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => strings(["setuptools"]),
        };
        if requires.iter().any(|r| r.starts_with("setuptools")) && !requires.iter().any(|r| r.starts_with("wheel")) {
            requires.push("wheel".to_owned());
        }
        requires
    }
}
