//! The keys of `kiln.toml` and their meaning.
//!
//! Invariant: an unknown key is an error, and a value outside its range never reaches a plan.

use toml_edit::{Document, Value};

use super::{
    Error,
    reader::{Reader, line},
    units,
};
use super::{caches, dockerfile, gates, image, notify};
use kiln_detect::{self as detect, Language};
use kiln_plan::{
    Artifact, ArtifactFile, ArtifactKind, Gate, Libc, Notify, Platform, Step, Target, default_libraries, path_problem,
};

/// The content of a `kiln.toml`; the planner fills in what it omits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project's name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Globs of source paths that are inputs of no step.
    pub exclude: Vec<String>,
    /// The environments to build for.
    pub targets: Vec<Target>,
    /// The steps in the order of the file.
    pub steps: Vec<Step>,
    /// The artifacts in the order of the file.
    pub artifacts: Vec<Artifact>,
    /// What the artifacts must pass, in the order of the file.
    pub gates: Vec<Gate>,
    /// Where `kiln build --store` pushes, in the syntax of `--push`.
    pub push: Vec<String>,
    /// Who is told of the end of a build.
    pub notify: Option<Notify>,
}

/// The detected plan that a file changes; empty if the file is the whole plan.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// Its steps.
    pub steps: Vec<Step>,
    /// Its artifacts.
    pub artifacts: Vec<Artifact>,
}

/// The keys that determine how a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Whether the file is the whole plan rather than changes to what was detected.
    pub is_whole: bool,
    /// The language to detect.
    pub language: Option<Language>,
}

const ROOT: &[&str] =
    &["name", "version", "exclude", "detect", "language", "targets", "steps", "artifacts", "gates", "store", "notify"];
const STORE: &[&str] = &["push"];
const TARGET: &[&str] = &["platform", "os", "libc", "glibc", "cpu", "labels", "libraries", "image"];
const STEP: &[&str] = &[
    "why",
    "needs",
    "inputs",
    "unversioned",
    "files",
    "run",
    "outputs",
    "reports",
    "retries",
    "env",
    "secrets",
    "network",
    "cpus",
    "memory",
    "timeout",
    "shards",
    "cache",
    "caches",
    "image",
    "platform",
    "packages",
    "tools",
    "working_directory",
    "stamp",
    "native",
    "split",
    "test",
];
const ARTIFACT: &[&str] = &["from", "files", "kind", "check_elf", "bundle_libraries"];
const FILES: &str = "a list of paths, each a string or `{ path = \"..\", dest = \"..\" }`";

fn document(content: &[u8]) -> Result<(&str, Document<String>), Error> {
    let text = std::str::from_utf8(content).map_err(|_| Error::NotText)?;
    let document = Document::parse(text.to_owned()).map_err(|error| syntax(text, &error))?;
    Ok((text, document))
}

fn syntax(text: &str, error: &toml_edit::TomlError) -> Error {
    let span = error.span().unwrap_or_default();
    let mut message = error.message().trim().replace('\n', ", ");
    if let Some(key) = text.get(span.clone()).filter(|_| message == "duplicate key") {
        message = format!("duplicate key `{key}`: each name is used once");
    }
    Error::Syntax { line: line(text, span.start), message }
}

/// Reads the keys that determine how the rest of a `kiln.toml` is read.
///
/// A file is the whole plan if `detect = false`, or if it does not set `detect` and has complete steps that refer to no
/// others.
pub fn head(content: &[u8]) -> Result<Head, Error> {
    let (text, document) = document(content)?;
    let root = Reader::root(text, document.as_table());
    root.only(ROOT)?;
    let language = match root.string("language")? {
        None => None,
        Some(text) => {
            let names = Language::ALL.map(|language| format!("`{language}`")).join(", ");
            let expected = format!("a language, one of {names}");
            Some(text.parse().map_err(|_| root.bad("language", &text, &expected))?)
        }
    };
    let is_whole = match root.bool("detect")? {
        Some(true) => false,
        Some(false) => true,
        None => language.is_none() && refers_to_itself_alone(&root)?,
    };
    Ok(Head { is_whole, language })
}

/// Whether there are steps, each has a command, and everything that they refer to is in the file.
fn refers_to_itself_alone(root: &Reader<'_>) -> Result<bool, Error> {
    let steps = root.tables("steps")?;
    let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
    let known = |list: Vec<String>| list.iter().all(|name| names.contains(&name.as_str()));
    let of_dockerfiles = root.tables("artifacts")?.iter().all(|(_, artifact)| artifact.has(dockerfile::KEY));
    if steps.is_empty() && (!of_dockerfiles || root.tables("artifacts")?.is_empty()) {
        return Ok(false);
    }
    for (_, step) in &steps {
        if !step.has("run") || !step.strings("needs").is_ok_and(known) {
            return Ok(false);
        }
    }
    for (_, artifact) in root.tables("artifacts")? {
        if !artifact.has(dockerfile::KEY) && (!artifact.has("from") || !artifact.has("files")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The secrets that the steps and Dockerfiles of a `kiln.toml` need, each as the name of the step or artifact and of the secret.
pub fn secrets(content: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let (text, document) = document(content)?;
    let mut asked = Vec::new();
    for (name, step) in Reader::root(text, document.as_table()).tables("steps")? {
        asked.extend(step.strings("secrets")?.into_iter().map(|secret| (name.clone(), secret)));
    }
    for (name, gate) in Reader::root(text, document.as_table()).tables("gates")? {
        asked.extend(gate.strings("secrets")?.into_iter().map(|secret| (format!("gate:{name}"), secret)));
    }
    for (name, artifact) in Reader::root(text, document.as_table()).tables("artifacts")? {
        asked.extend(dockerfile::secrets(&artifact)?.into_iter().map(|secret| (name.clone(), secret)));
    }
    Ok(asked)
}

/// Where `kiln build --store` pushes.
pub fn push_places(content: &[u8]) -> Result<Vec<String>, Error> {
    let (text, document) = document(content)?;
    store(&Reader::root(text, document.as_table()))
}

/// Reads a `kiln.toml`. A target without a platform is for the `host`. If the file names a step or artifact of `base`,
/// the given keys change it; others are added.
pub fn parse(content: &[u8], host: Platform, base: Base) -> Result<Project, Error> {
    let (text, document) = document(content)?;
    let root = Reader::root(text, document.as_table());
    root.only(ROOT)?;
    let name = root.string("name")?;
    if let Some(name) = name.as_deref().filter(|n| n.is_empty() || n.contains(char::is_whitespace)) {
        return Err(root.bad("name", name, "a name without spaces"));
    }
    let version = root.string("version")?;
    if let Some(version) = version.as_deref().filter(|v| v.is_empty() || v.contains([' ', '/', '\n'])) {
        return Err(root.bad("version", version, "a version without spaces or slashes"));
    }
    let (mut steps, mut artifacts) = (base.steps, base.artifacts);
    for (name, table) in root.tables("steps")? {
        match steps.iter_mut().find(|step| step.name == name) {
            Some(step) => change_step(step, &table)?,
            None => steps.push(step(name, &table)?),
        }
    }
    for (name, table) in root.tables("artifacts")? {
        match artifacts.iter_mut().find(|artifact| artifact.name == name) {
            Some(artifact) => change_artifact(artifact, &table)?,
            None => artifacts.push(artifact(name, &table)?),
        }
    }
    Ok(Project {
        name,
        version,
        exclude: root.strings("exclude")?,
        targets: each(&root, "targets", |name, table| target(name, table, host))?,
        steps,
        artifacts,
        gates: each(&root, "gates", gates::gate)?,
        push: store(&root)?,
        notify: notify::read(&root)?,
    })
}

/// Where artifacts are pushed to.
fn store(root: &Reader<'_>) -> Result<Vec<String>, Error> {
    let Some(table) = root.table("store")? else { return Ok(Vec::new()) };
    table.only(STORE)?;
    table.strings("push")
}

fn each<T>(
    root: &Reader<'_>,
    key: &str,
    read: impl Fn(String, &Reader<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    root.tables(key)?.into_iter().map(|(name, table)| read(name, &table)).collect()
}

fn platform(table: &Reader<'_>) -> Result<Option<Platform>, Error> {
    let Some(text) = table.string("platform")? else { return Ok(None) };
    let wrong = |_| table.bad("platform", &text, "a platform: `linux/amd64` or `linux/arm64`");
    text.parse().map(Some).map_err(wrong)
}

fn target(name: String, table: &Reader<'_>, host: Platform) -> Result<Target, Error> {
    table.only(TARGET)?;
    let platform = platform(table)?.unwrap_or(host);
    let glibc = match table.string("glibc")? {
        None => None,
        Some(text) => {
            Some(units::read_glibc(&text).ok_or_else(|| table.bad("glibc", &text, "a version such as `2.36`"))?)
        }
    };
    let libc = match table.string("libc")?.as_deref() {
        None => glibc.map(|_| Libc::Glibc),
        Some("glibc") => Some(Libc::Glibc),
        Some("musl") if glibc.is_some() => {
            return Err(table.bad("libc", "musl", "`glibc`, because the key `glibc` gives its version"));
        }
        Some("musl") => Some(Libc::Musl),
        Some(other) => return Err(table.bad("libc", other, "`glibc` or `musl`")),
    };
    let cpu_level = table.string("cpu")?;
    if let Some(text) = cpu_level.as_deref().filter(|text| !platform.has_cpu_level(text)) {
        return Err(table.bad("cpu", text, platform.cpu_levels()));
    }
    let mut libraries = default_libraries();
    let declared = table.strings("libraries")?;
    libraries.extend(declared.into_iter().filter(|name| !default_libraries().contains(name)));
    let (os, labels, image) = (table.string("os")?, table.string_map("labels")?, image_name(table)?);
    Ok(Target { name, platform, os, glibc, libc, cpu_level, labels, libraries, image })
}

/// An image in a registry or an engine, or one of the project's files.
fn image_name(table: &Reader<'_>) -> Result<Option<String>, Error> {
    let Some(name) = table.string("image")? else { return Ok(None) };
    match name.strip_prefix("./") {
        Some(path) if path_problem(path).is_some() => Err(table.bad("image", &name, "a path below the project")),
        _ => Ok(Some(name)),
    }
}

/// Packages to install. A name that begins like an option would be one.
pub(super) fn packages(table: &Reader<'_>, key: &'static str) -> Result<Vec<String>, Error> {
    let mut names = table.strings(key)?;
    let is_wrong = |name: &&String| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._:=~@/<>^".contains(c);
        !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '@') || !name.chars().all(allowed)
    };
    if let Some(wrong) = names.iter().find(is_wrong) {
        return Err(table.bad(key, wrong, "names of packages, such as `libonig-dev` or `curl=8.5.0-2`"));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn step(name: String, table: &Reader<'_>) -> Result<Step, Error> {
    table.only(STEP)?;
    let mut step = Step::new(name, table.required_string("run")?);
    change_step(&mut step, table)?;
    Ok(step)
}

/// Sets the keys that a table contains and keeps the others; variables and files are added to existing ones.
fn change_step(step: &mut Step, table: &Reader<'_>) -> Result<(), Error> {
    table.only(STEP)?;
    set_keys(step, table)
}

/// Sets the keys of a step in a table that may have others.
pub(super) fn set_keys(step: &mut Step, table: &Reader<'_>) -> Result<(), Error> {
    if let Some(run) = table.string("run")? {
        if run.trim().is_empty() {
            return Err(table.bad("run", run, "a command"));
        }
        step.run = run;
    }
    let lists = [
        ("needs", &mut step.needs),
        ("inputs", &mut step.inputs),
        ("unversioned", &mut step.unversioned),
        ("outputs", &mut step.outputs),
        ("reports", &mut step.reports),
        ("secrets", &mut step.secrets),
        ("tools", &mut step.tools),
    ];
    for (key, list) in lists {
        if table.has(key) {
            *list = table.strings(key)?;
        }
    }
    let files = table.string_map("files")?.into_iter();
    step.files.extend(files.map(|(path, text)| (path, detect::builtin(&text).map_or(text, str::to_owned))));
    step.env.extend(table.string_map("env")?);
    step.caches.extend(caches::read(table)?);
    step.why = table.string("why")?.unwrap_or(std::mem::take(&mut step.why));
    step.network = table.bool("network")?.unwrap_or(step.network);
    step.cache = table.bool("cache")?.unwrap_or(step.cache);
    step.stamp = table.bool("stamp")?.unwrap_or(step.stamp);
    step.native = table.bool("native")?.unwrap_or(step.native);
    step.split = table.split("split")?.unwrap_or(step.split);
    step.platform = platform(table)?.or(step.platform);
    step.image = image_name(table)?.or(step.image.take());
    if table.has("packages") {
        step.packages = packages(table, "packages")?;
    }
    step.working_directory = table.string("working_directory")?.or(step.working_directory.take());
    step.test = table.bool("test")?.unwrap_or(step.test);
    if let Some(cpus) = table.number("cpus")? {
        let milli = (cpus * 1000.0).round();
        if !(1.0..=1_000_000.0).contains(&milli) {
            return Err(table.bad("cpus", cpus, "a number of processors from 0.001 to 1000"));
        }
        step.milli_cpus = milli as u32;
    }
    if let Some(size) = table.string("memory")? {
        step.memory_auto = size == units::AUTO;
        if !step.memory_auto {
            step.memory_bytes =
                units::read_size(&size).ok_or_else(|| table.bad("memory", &size, units::SIZE_OR_AUTO))?;
        }
    }
    if let Some(time) = table.string("timeout")? {
        let time = units::read_duration(&time).ok_or_else(|| table.bad("timeout", &time, units::DURATION))?;
        step.timeout = Some(time);
    }
    if let Some(retries) = table.integer("retries")? {
        let count = u32::try_from(retries).ok().filter(|n| *n <= 10);
        step.retries = count.ok_or_else(|| table.bad("retries", retries, "a count from 0 to 10"))?;
    }
    if let Some(shards) = table.integer_or("shards", units::AUTO)? {
        step.shards_auto = shards.is_none();
        if let Some(shards) = shards {
            let count = u32::try_from(shards).ok().filter(|n| (1..=10_000).contains(n));
            step.shards = count.ok_or_else(|| table.bad("shards", shards, "`\"auto\"`, or a count from 1 to 10000"))?;
        }
    }
    Ok(())
}

fn artifact(name: String, table: &Reader<'_>) -> Result<Artifact, Error> {
    for key in ["from", "files"] {
        if !table.has(key) && !table.has(dockerfile::KEY) {
            return Err(table.missing(key));
        }
    }
    let mut artifact = Artifact {
        name,
        from: Vec::new(),
        files: Vec::new(),
        kind: ArtifactKind::Binary,
        check_elf: true,
        bundle_libraries: false,
    };
    change_artifact(&mut artifact, table)?;
    Ok(artifact)
}

fn change_artifact(artifact: &mut Artifact, table: &Reader<'_>) -> Result<(), Error> {
    if table.has(dockerfile::KEY) {
        artifact.kind = ArtifactKind::Dockerfile(Box::new(dockerfile::dockerfile(table)?));
        (artifact.from, artifact.files, artifact.check_elf) = (Vec::new(), Vec::new(), false);
        return Ok(());
    }
    table.none_of(dockerfile::KEYS, "it is for an artifact with a `dockerfile`")?;
    let kind = table.string("kind")?;
    if kind.as_deref() == Some("image") {
        table.only(&[ARTIFACT, image::KEYS].concat())?;
    } else {
        table.none_of(image::KEYS, "it is for an artifact of `kind = \"image\"`")?;
        table.only(ARTIFACT)?;
    }
    if table.has("from") {
        artifact.from = table.strings("from")?;
        if artifact.from.is_empty() {
            return Err(table.missing("from"));
        }
    }
    if table.has("files") {
        artifact.files = table.list("files", FILES, artifact_file)?;
        if artifact.files.is_empty() {
            return Err(table.missing("files"));
        }
    }
    match kind.as_deref() {
        None => {}
        Some("binary") => artifact.kind = ArtifactKind::Binary,
        Some("archive") => artifact.kind = ArtifactKind::Archive,
        Some("image") => artifact.kind = ArtifactKind::Image(Box::new(image::image(table)?)),
        Some(other) => return Err(table.bad("kind", other, "`binary`, `archive` or `image`")),
    }
    artifact.bundle_libraries = table.bool("bundle_libraries")?.unwrap_or(artifact.bundle_libraries);
    if artifact.bundle_libraries && matches!(artifact.kind, ArtifactKind::Image(_)) {
        return Err(table.bad("bundle_libraries", true, "`false`, because an image has the libraries of its `base`"));
    }
    artifact.check_elf = table.bool("check_elf")?.unwrap_or(artifact.check_elf);
    Ok(())
}

fn artifact_file(value: &Value) -> Option<ArtifactFile> {
    if let Some(path) = value.as_str() {
        return Some(ArtifactFile { path: path.to_owned(), dest: None });
    }
    let table = value.as_inline_table()?;
    if table.iter().any(|(key, _)| key != "path" && key != "dest") {
        return None;
    }
    let dest = match table.get("dest") {
        None => None,
        Some(dest) => Some(dest.as_str()?.to_owned()),
    };
    Some(ArtifactFile { path: table.get("path")?.as_str()?.to_owned(), dest })
}
