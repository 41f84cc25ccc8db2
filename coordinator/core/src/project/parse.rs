//! The keys of `kiln.toml` and what each becomes.
//!
//! Invariant: a key is either understood or an error; a value outside its range never reaches a plan.

use toml_edit::{Document, Value};

use super::image;
use super::{
    Error,
    reader::{Reader, line},
    units,
};
use crate::plan::{Artifact, ArtifactFile, ArtifactKind, Libc, Platform, Step, Target, default_libraries};

/// What a `kiln.toml` says; what it leaves out is for the planner to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project's name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Globs of source paths that enter no step.
    pub exclude: Vec<String>,
    /// The environments to build for.
    pub targets: Vec<Target>,
    /// The steps in the order of the file.
    pub steps: Vec<Step>,
    /// The artifacts in the order of the file.
    pub artifacts: Vec<Artifact>,
    /// Where `kiln build --store` pushes, as `--push` has it.
    pub push: Vec<String>,
}

const ROOT: &[&str] = &["name", "version", "exclude", "targets", "steps", "artifacts", "store"];
const STORE: &[&str] = &["push"];
const TARGET: &[&str] = &["platform", "os", "libc", "glibc", "cpu", "labels", "libraries"];
const STEP: &[&str] = &[
    "why",
    "needs",
    "inputs",
    "unversioned",
    "files",
    "run",
    "outputs",
    "env",
    "secrets",
    "network",
    "cpus",
    "memory",
    "timeout",
    "shards",
    "cache",
    "image",
    "tools",
    "working_directory",
    "stamp",
    "native",
];
const ARTIFACT: &[&str] = &["from", "files", "kind", "check_elf", "bundle_libraries"];
const FILES: &str = "a list of paths, each a string or `{ path = \"..\", dest = \"..\" }`";

/// Reads a `kiln.toml`. A target that names no platform is for the `host`.
pub fn parse(content: &[u8], host: Platform) -> Result<Project, Error> {
    let text = std::str::from_utf8(content).map_err(|_| Error::NotText)?;
    let document = Document::parse(text).map_err(|e| Error::Syntax {
        line: line(text, e.span().map_or(0, |s| s.start)),
        message: e.message().trim().replace('\n', ", "),
    })?;
    let root = Reader::root(text, document.as_table());
    root.only(ROOT)?;
    let name = root.string("name")?;
    if let Some(name) = name.as_deref().filter(|n| n.is_empty() || n.contains(char::is_whitespace)) {
        return Err(root.bad("name", name, "a name without blanks"));
    }
    let version = root.string("version")?;
    if let Some(version) = version.as_deref().filter(|v| v.is_empty() || v.contains([' ', '/', '\n'])) {
        return Err(root.bad("version", version, "a version without blanks or slashes"));
    }
    Ok(Project {
        name,
        version,
        exclude: root.strings("exclude")?,
        targets: each(&root, "targets", |name, table| target(name, table, host))?,
        steps: each(&root, "steps", step)?,
        artifacts: each(&root, "artifacts", artifact)?,
        push: store(&root)?,
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

fn target(name: String, table: &Reader<'_>, host: Platform) -> Result<Target, Error> {
    table.only(TARGET)?;
    let platform = match table.string("platform")? {
        None => host,
        Some(text) => {
            text.parse().map_err(|_| table.bad("platform", &text, "a platform: `linux/amd64` or `linux/arm64`"))?
        }
    };
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
            return Err(table.bad("libc", "musl", "`glibc`, for `glibc` names a version of it"));
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
    let (os, labels) = (table.string("os")?, table.string_map("labels")?);
    Ok(Target { name, platform, os, glibc, libc, cpu_level, labels, libraries })
}

fn step(name: String, table: &Reader<'_>) -> Result<Step, Error> {
    table.only(STEP)?;
    let run = table.required_string("run")?;
    if run.trim().is_empty() {
        return Err(table.bad("run", run, "a command"));
    }
    let mut step = Step::new(name, run);
    step.why = table.string("why")?.unwrap_or_default();
    step.needs = table.strings("needs")?;
    step.inputs = table.strings("inputs")?;
    step.unversioned = table.strings("unversioned")?;
    step.files = table.string_map("files")?;
    step.outputs = table.strings("outputs")?;
    step.env = table.string_map("env")?;
    step.secrets = table.strings("secrets")?;
    step.network = table.bool("network")?.unwrap_or(false);
    step.cache = table.bool("cache")?.unwrap_or(true);
    step.stamp = table.bool("stamp")?.unwrap_or(false);
    step.native = table.bool("native")?.unwrap_or(false);
    step.image = table.string("image")?;
    step.tools = table.strings("tools")?;
    step.working_directory = table.string("working_directory")?;
    if let Some(cpus) = table.number("cpus")? {
        let milli = (cpus * 1000.0).round();
        if !(1.0..=1_000_000.0).contains(&milli) {
            return Err(table.bad("cpus", cpus, "a number of processors from 0.001 to 1000"));
        }
        step.milli_cpus = milli as u32;
    }
    if let Some(size) = table.string("memory")? {
        step.memory_bytes = units::read_size(&size).ok_or_else(|| table.bad("memory", &size, units::SIZE))?;
    }
    if let Some(time) = table.string("timeout")? {
        let time = units::read_duration(&time).ok_or_else(|| table.bad("timeout", &time, units::DURATION))?;
        step.timeout = Some(time);
    }
    if let Some(shards) = table.integer("shards")? {
        let count = u32::try_from(shards).ok().filter(|n| (1..=10_000).contains(n));
        step.shards = count.ok_or_else(|| table.bad("shards", shards, "a count from 1 to 10000"))?;
    }
    Ok(step)
}

fn artifact(name: String, table: &Reader<'_>) -> Result<Artifact, Error> {
    let is_image = table.string("kind")?.as_deref() == Some("image");
    if is_image {
        table.only(&[ARTIFACT, image::KEYS].concat())?;
    } else {
        table.none_of(image::KEYS, "it is for an artifact of `kind = \"image\"`")?;
        table.only(ARTIFACT)?;
    }
    let from = table.strings("from")?;
    if from.is_empty() {
        return Err(table.missing("from"));
    }
    let files = table.list("files", FILES, artifact_file)?;
    if files.is_empty() {
        return Err(table.missing("files"));
    }
    let kind = match table.string("kind")?.as_deref() {
        None | Some("binary") => ArtifactKind::Binary,
        Some("archive") => ArtifactKind::Archive,
        Some("image") => ArtifactKind::Image(Box::new(image::image(table)?)),
        Some(other) => return Err(table.bad("kind", other, "`binary`, `archive` or `image`")),
    };
    let bundle_libraries = table.bool("bundle_libraries")?.unwrap_or(false);
    if bundle_libraries && is_image {
        return Err(table.bad("bundle_libraries", true, "`false`, for an image has the libraries of its `base`"));
    }
    let check_elf = table.bool("check_elf")?.unwrap_or(true);
    Ok(Artifact { name, from, files, kind, check_elf, bundle_libraries })
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
