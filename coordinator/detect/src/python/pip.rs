//! pip: a requirements file, or a package's own requirements.
//!
//! Invariant: directories of the tree are removed from what pip installs with network access, and replaced by their requirements.

use toml::Value;

use super::{
    super::{Error, found::strings, tree},
    PACKAGES, Project,
    bundle::REQUIRED,
    layers::{Layer, PIP_INSTALL},
    local::{self, Local},
    requirements::{self, Requirements},
};

/// The requirements of packages of the tree that their manifests state.
const STATED: &str = ".kiln/requirements.txt";
/// Versions pinned by the development requirements.
const CONSTRAINTS: &str = ".kiln/constraints.txt";

impl Project<'_> {
    pub(super) fn pip(&self) -> Result<Layer, Error> {
        let listed = self.requirements.as_ref().map(|file| requirements::read(self.source, file));
        let locals = self.locals(listed.as_ref())?;
        let mut layer = Layer {
            tool: "pip",
            tools: strings(["python3"]),
            sources: self.is_application() || !self.is_package(),
            ..Layer::default()
        };
        let mut options = String::new();
        // A list that pins everything with hashes is a complete lock; pip would accept nothing in addition.
        let locked = listed.as_ref().is_some_and(|list| list.hashed);
        if let (Some(file), Some(list)) = (&self.requirements, listed) {
            layer.because.push(format!("`{file}` names what it needs"));
            layer.named = format!("`{file}`");
            let tool = list.development_tool().filter(|_| self.is_package() && !layer.sources && !locked);
            if let Some(tool) = tool {
                layer.notes.push(format!(
                    "`{file}` names `{tool}`, so it is taken for the developers' list: it pins versions, and only \
                     what the package itself needs is installed"
                ));
                if !list.pins.is_empty() {
                    layer.files.insert(CONSTRAINTS.into(), list.pins.join("\n") + "\n");
                    options.push_str(&format!(" -c {CONSTRAINTS}"));
                }
            } else {
                if list.hashed {
                    options.push_str(" --require-hashes");
                }
                options.push_str(&format!(" -r {}", tree::shell_word(file)));
                if list.git {
                    layer.tools.push("git".to_owned());
                }
                layer.inputs = list.files.into_iter().chain(list.archives).collect();
                layer.files.extend(list.rewritten);
                layer.notes.extend(list.note);
            }
        }
        let described = self.is_package() || self.pyproject.contains_key("project");
        if let Some(first) = self.manifests.first().filter(|_| described) {
            let what = if self.is_package() { "package" } else { "project" };
            layer.because.push(format!("`{first}` is a {what}"));
            if layer.named.is_empty() {
                layer.named = format!("`{first}`");
            }
        }
        let loose = options.is_empty();
        let mut install = options.contains(" -r ");
        layer.asks_backends = !locked && locals.iter().any(|l| l.needs.is_none());
        let mut needs: Vec<String> = Vec::new();
        if !self.is_package() && self.pyproject.contains_key("project") {
            // An application described by `[project]` that nothing builds.
            needs.extend(Local::read(self.source, "", Vec::new())?.needs.unwrap_or_default());
        }
        if layer.asks_backends {
            options.push_str(&format!(" -r {REQUIRED}"));
            install = true;
        } else {
            needs.extend(locals.iter().flat_map(|l| l.needs.iter().flatten()).cloned());
        }
        let ours = |need: &String| {
            let name = requirements::normalised(requirements::name(need));
            locals.iter().any(|l| l.name.as_ref() == Some(&name))
        };
        needs.retain(|need| !locked && !ours(need));
        if !needs.is_empty() {
            layer.files.insert(STATED.into(), needs.join("\n") + "\n");
            options.push_str(&format!(" -r {STATED}"));
            install = true;
        }
        if install {
            layer.run = format!("{PIP_INSTALL} --target {PACKAGES}{options}\n");
            let foreign = tree::first_of(self.source, &["pdm.lock", "Pipfile.lock", "pylock.toml"]);
            if let Some(lock) = foreign.filter(|_| loose) {
                layer.notes.push(format!(
                    "`{lock}` is not read, so two builds of one commit could differ: export it to a `requirements.txt` \
                     with hashes, or use uv or poetry"
                ));
            } else if loose {
                layer.notes.push(
                    "nothing locks what the package needs, so two builds of one commit could differ: add a \
                     `requirements.txt` with hashes, or use uv or poetry"
                        .into(),
                );
            }
        }
        layer.locals = locals;
        Ok(layer)
    }

    /// The packages of the tree to install: those in the list, and the project itself.
    fn locals(&self, listed: Option<&Requirements>) -> Result<Vec<Local>, Error> {
        let mut wanted: Vec<(String, Vec<String>)> = listed.map(|list| list.directories.clone()).unwrap_or_default();
        let poetry = self.pyproject.get("tool").and_then(|t| t.get("poetry")).and_then(|p| p.get("dependencies"));
        let places = poetry.and_then(Value::as_table).into_iter().flatten();
        let places = places.filter_map(|(_, value)| tree::join("", value.get("path")?.as_str()?));
        wanted.extend(places.filter(|place| local::is_there(self.source, place)).map(|place| (place, Vec::new())));
        if self.is_package() {
            wanted.push((String::new(), Vec::new()));
        }
        let mut merged: Vec<(String, Vec<String>)> = Vec::new();
        for (directory, extras) in wanted {
            match merged.iter_mut().find(|(known, _)| *known == directory) {
                Some((_, all)) => all.extend(extras),
                None => merged.push((directory, extras)),
            }
        }
        merged.into_iter().map(|(directory, extras)| Local::read(self.source, &directory, extras)).collect()
    }
}
