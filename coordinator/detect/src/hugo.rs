//! Sites of Hugo: `hugo.toml`, or `config.toml` beside `content`.
//!
//! Invariant: modules come from `go.sum` and npm's packages from their lock file, both in layers; the build has no network.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Detected, Error, Identity,
    found::{artifact, compile_step, fetch_step, strings},
    node,
    staging::{OUT, refuse_empty},
    submodules, tree,
};
use kiln_plan::{ArtifactKind, Source, Step};

/// Configurations under Hugo's own name.
const OWN: [&str; 5] = ["hugo.toml", "hugo.yaml", "hugo.yml", "hugo.json", "config/_default/hugo.toml"];
/// Configurations that other tools have too.
const SHARED: [&str; 5] = ["config.toml", "config.yaml", "config.yml", "config.json", "config/_default/config.toml"];
/// Where Hugo's modules are copied to.
const VENDOR: &str = "_vendor";

/// The configuration, and whether its name alone is proof.
pub(super) fn configuration(source: &dyn Source) -> Option<(&'static str, bool)> {
    if let Some(own) = tree::first_of(source, &OWN) {
        return Some((own, true));
    }
    let is_site = tree::has_directory(source, "content") && {
        ["layouts", "themes", "archetypes"].iter().any(|name| tree::has_directory(source, name))
            || tree::has(source, ".gitmodules")
    };
    tree::first_of(source, &SHARED).filter(|_| is_site).map(|shared| (shared, false))
}

/// Sites have neither a declared name nor a version.
pub(super) fn identity(_: &dyn Source) -> Identity {
    Identity::default()
}

/// The oldest version of Hugo that the site's configuration allows.
pub(super) fn minimum(source: &dyn Source) -> Option<String> {
    let (path, _) = configuration(source)?;
    let root = read(source, path).ok()?;
    root.get("module")?.get("hugoVersion")?.get("min")?.as_str().map(str::to_owned)
}

/// The version that Netlify would build with.
pub(super) fn of_netlify(source: &dyn Source) -> Option<String> {
    let root = tree::toml(source, "netlify.toml").ok()??;
    let version = root.get("build")?.get("environment")?.get("HUGO_VERSION")?.as_str()?;
    Some(version.to_owned())
}

fn read(source: &dyn Source, path: &str) -> Result<Value, Error> {
    let invalid = |message: String| Error::Manifest { path: path.to_owned(), message };
    let text = tree::text(source, path).unwrap_or_default();
    match path.rsplit('.').next() {
        Some("toml") => {
            let table = tree::toml(source, path)?.unwrap_or_default();
            serde_json::to_value(table).map_err(|error| invalid(error.to_string()))
        }
        Some("json") => Ok(tree::json(source, path)?.unwrap_or_default()),
        _ => serde_saphyr::from_str(&text)
            .map_err(|error| invalid(error.to_string().lines().next().unwrap_or_default().to_owned())),
    }
}

/// Detects a site in the root of the tree.
pub(super) fn detect(source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let Some((path, _)) = configuration(source) else { return Ok(None) };
    let root = read(source, path)?;
    let missing = submodules::missing(source);
    if !missing.is_empty() && missing.iter().any(|directory| directory.starts_with("themes/")) {
        return Err(Error::MissingSubmodule { note: submodules::note(&missing), by: path.to_owned() });
    }
    let mut because = vec![format!("`{path}` configures a site of Hugo")];
    let modules = modules(source, &root, path)?;
    because.extend(modules.as_ref().map(|_| "`go.sum` locks its modules".to_owned()));
    let packages = node::deps(source)?;
    because.extend(packages.as_ref().map(|_| "`package.json` names packages that its assets need".to_owned()));
    let mut notes = Vec::new();
    let git = root.get("enableGitInfo").or_else(|| root.get("enablegitinfo")).and_then(Value::as_bool);
    if git == Some(true) {
        notes.push(
            "`enableGitInfo` asks git when each page last changed, which steps do not see: it is turned off; give \
             pages a `date` or `lastmod`"
                .to_owned(),
        );
    }
    let layers: Vec<Step> = modules.into_iter().chain(packages).collect();
    let build = build(source, &layers, git == Some(true));
    Ok(Some(Detected {
        language: "hugo".into(),
        because,
        identity: Identity::default(),
        steps: layers.into_iter().chain([build]).collect(),
        artifacts: vec![artifact(directory_name, ArtifactKind::Archive, "build", &[(OUT, ".")])],
        notes,
    }))
}

/// The layer with the site's modules; `None` if it has none, or has copies of them.
fn modules(source: &dyn Source, root: &Value, path: &str) -> Result<Option<Step>, Error> {
    let imports = root.get("module").and_then(|module| module.get("imports")).and_then(Value::as_array);
    let imports = imports.is_some_and(|imports| !imports.is_empty());
    if !imports || tree::has_directory(source, VENDOR) {
        return Ok(None);
    }
    if !tree::has(source, "go.sum") {
        let command = "hugo mod get".to_owned();
        return Err(Error::MissingLock { manifest: path.to_owned(), lock: "go.sum".into(), command });
    }
    let mut step = fetch_step("modules", "fetches the modules that `go.sum` names", "hugo mod vendor\n");
    step.inputs = tree::all_of(source, &["go.mod", "go.sum", "go.work"]);
    step.inputs.push(if path.starts_with("config/") { "config".to_owned() } else { path.to_owned() });
    (step.env, step.tools, step.outputs) = (environment(), strings(["hugo", "go"]), strings([VENDOR]));
    Ok(Some(step))
}

fn build(source: &dyn Source, layers: &[Step], no_git: bool) -> Step {
    let theme = if tree::has_directory(source, "themes") { " in `themes`" } else { "" };
    let hint = format!("Hugo wrote no page: a site needs `content` and a theme{theme}");
    let run = format!("hugo --destination \"$PWD/{OUT}\" --noBuildLock\n{}", refuse_empty(&hint));
    let mut build = compile_step("build", "builds the site", run);
    build.needs = layers.iter().map(|layer| layer.name.clone()).collect();
    (build.env, build.tools, build.outputs) = (environment(), strings(["hugo"]), strings([OUT]));
    if no_git {
        build.env.insert("HUGO_ENABLEGITINFO".into(), "false".into());
    }
    for layer in layers.iter().filter(|layer| layer.name == "deps") {
        build.env.extend(layer.env.clone());
        build.tools.extend(layer.tools.clone());
    }
    build
}

fn environment() -> BTreeMap<String, String> {
    let fixed =
        [("GOFLAGS", "-modcacherw"), ("GOMODCACHE", "/tmp/go-mod"), ("HUGO_CACHEDIR", "/tmp/hugo"), ("TZ", "UTC")];
    fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
