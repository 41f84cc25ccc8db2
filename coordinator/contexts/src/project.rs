//! The sources of a project that has Dockerfiles: what these copy from is read as `docker build` reads it, everything else as git has it.
//!
//! Invariant: a context is a directory below the root of the project's tree, wherever links lead.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kiln_planner::plan::{self, ArtifactKind, DOCKERFILE, Dockerfile, MemorySource, Options, Plan, Scope};
use kiln_proto::digest::DigestFunction;
use kiln_proto::meter::Meter;
use kiln_proto::reapi::Directory;
use kiln_proto::transfer::Blob;
use kiln_proto::v1::SourceContext;
use kiln_scan::{Files, Keeps, Kept, OUTPUT_RECORD, SHARED_OUTPUT_RECORD, Scanned};
use kiln_trees::root::Times;
use kiln_trees::tree::{Entry, Tree};
use prost::Message as _;

use crate::layout::path;
use crate::{Error, local};

/// The file that says how a project is built.
const KILN_TOML: &str = "kiln.toml";
/// How a context that is an image on disk is named.
const LAYOUT: &str = "oci-layout://";

/// A project whose sources are wanted.
#[derive(Debug, Clone)]
pub struct Project {
    /// How its tree is scanned.
    pub scan: kiln_scan::Options,
    /// How its build is planned, as far as that decides which Dockerfiles are built.
    pub plan: Options,
    /// What is built.
    pub scope: Scope,
    /// Whether git's own files belong to contexts, as they do on a disk; not in a checkout for one build, where they are of that build.
    pub has_git_files: bool,
}

/// The sources.
#[derive(Debug)]
pub struct Sources {
    /// The tree.
    pub scanned: Scanned,
    /// The contexts in it.
    pub contexts: Vec<SourceContext>,
    /// Whether only Dockerfiles are built, so that nothing else of the project was read and nothing that git ignores is missed.
    pub is_of_dockerfiles: bool,
}

/// A plan that consists of Dockerfiles, and the files that it is made from.
#[derive(Debug, Clone)]
pub struct OfDockerfiles {
    /// The paths of the files that were looked at, sorted.
    pub paths: Vec<String>,
    /// Those that the plan was made from.
    files: BTreeMap<String, Vec<u8>>,
    plan: Plan,
}

impl Project {
    /// A project in this tree whose build is planned so.
    pub fn new(root: PathBuf, function: DigestFunction, plan: Options) -> Self {
        let scan = kiln_scan::Options { root, parts: Vec::new(), cache: None, function, files: Files::Project };
        Self { scan, plan, scope: Scope::Build, has_git_files: true }
    }

    /// The plan, if all that it builds is Dockerfiles. Looks at no more than the files beside the project's own `kiln.toml` or
    /// Dockerfile, and those of the directories above it in the tree.
    pub fn of_dockerfiles(&self) -> Option<OfDockerfiles> {
        let named = self.plan.dockerfile.as_ref().map(|wanted| wanted.file.as_str()).filter(|file| !file.is_empty());
        let at = |name: &str| below(&self.plan.directory, name);
        let is_there = |name: &str| self.scan.root.join(at(name)).is_file();
        if named.is_none() && !is_there(DOCKERFILE) && !self.configures_dockerfiles() {
            return None;
        }
        let mut paths: BTreeSet<String> = Path::new(&self.plan.directory)
            .ancestors()
            .filter_map(Path::to_str)
            .flat_map(|directory| self.files_in(directory))
            .collect();
        paths.extend(named.filter(|file| is_there(file)).map(at));
        let paths: Vec<String> = paths.into_iter().collect();
        let (plan, files) = self.planned(paths.clone());
        let plan = plan.ok()?;
        let is_dockerfile = |artifact: &plan::Artifact| matches!(artifact.kind, ArtifactKind::Dockerfile(_));
        let alone = plan.steps.is_empty() && !plan.artifacts.is_empty() && plan.artifacts.iter().all(is_dockerfile);
        let alone = alone && !plan.gates.iter().any(plan::Gate::reads_sources);
        alone.then_some(OfDockerfiles { paths, files, plan })
    }

    /// Whether the project's `kiln.toml` may name a Dockerfile.
    fn configures_dockerfiles(&self) -> bool {
        let path = self.scan.root.join(below(&self.plan.directory, KILN_TOML));
        std::fs::read_to_string(path).is_ok_and(|text| text.contains("dockerfile"))
    }

    /// The paths of files that are directly in a directory.
    fn files_in(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.scan.root.join(directory)) else { return Vec::new() };
        let names = entries.flatten().filter(|entry| entry.path().is_file());
        names.filter_map(|entry| Some(below(directory, entry.file_name().to_str()?))).collect()
    }

    /// The plan of a tree with these paths, and the files that it was made from.
    fn planned(&self, paths: Vec<String>) -> (Result<Plan, plan::Error>, BTreeMap<String, Vec<u8>>) {
        let mut source = MemorySource::with_paths(paths, BTreeMap::new());
        let mut files = BTreeMap::new();
        loop {
            let plan = plan::plan_for(&source, &self.plan, self.scope);
            let unread = source.unread();
            if unread.is_empty() {
                return (plan, files);
            }
            for path in unread {
                let content = self.read(&path);
                files.extend(content.clone().map(|content| (path.clone(), content)));
                source.supply(path, content);
            }
        }
    }

    /// The content of a file of the tree, wherever in it links lead.
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let full = self.scan.root.join(path).canonicalize().ok()?;
        if full.starts_with(&self.scan.root) { std::fs::read(full).ok() } else { None }
    }
}

/// Reads a project. Blocks; within a runtime it needs a thread for blocking work.
///
/// # Errors
/// If something cannot be read, or is not what it should be.
pub fn sources(project: &Project, meter: &Meter) -> Result<Sources, Error> {
    let root = kiln_scan::directory(&project.scan.root)?;
    let project = &Project { scan: kiln_scan::Options { root, ..project.scan.clone() }, ..project.clone() };
    if let Some(OfDockerfiles { mut files, plan, .. }) = project.of_dockerfiles() {
        for file in beside(&plan) {
            files.extend(project.read(&file).map(|content| (file, content)));
        }
        let scanned = of_files(project, files)?;
        return with_contexts(project, scanned, &plan, true, meter);
    }
    let scanned = kiln_scan::scan_metered(&project.scan, meter)?;
    if !project.configures_dockerfiles() {
        return Ok(Sources { scanned, contexts: Vec::new(), is_of_dockerfiles: false });
    }
    match project.planned(scanned.paths.clone()).0 {
        Ok(plan) => with_contexts(project, scanned, &plan, false, meter),
        // The farm says what is wrong.
        Err(_) => Ok(Sources { scanned, contexts: Vec::new(), is_of_dockerfiles: false }),
    }
}

fn dockerfiles(plan: &Plan) -> impl Iterator<Item = &Dockerfile> {
    plan.artifacts.iter().filter_map(|artifact| match &artifact.kind {
        ArtifactKind::Dockerfile(dockerfile) => Some(&**dockerfile),
        _ => None,
    })
}

/// The Dockerfiles of a plan, and what `.dockerignore` files there may be for them.
fn beside(plan: &Plan) -> Vec<String> {
    let of = |dockerfile: &Dockerfile| {
        let (file, context) = (&dockerfile.file, &dockerfile.context);
        [file.clone(), format!("{file}{}", local::IGNORE), below(context, local::IGNORE)]
    };
    dockerfiles(plan).flat_map(of).collect()
}

/// A tree that has these files alone.
fn of_files(project: &Project, files: BTreeMap<String, Vec<u8>>) -> Result<Scanned, Error> {
    let function = project.scan.function;
    let (mut tree, mut blobs) = (Tree::default(), HashMap::new());
    let mut paths = Vec::new();
    for (path, content) in files {
        let digest = function.digest(&content);
        tree.insert(&path, Entry::file(digest, false))?;
        blobs.insert(digest, Blob::Bytes(Bytes::from(content)));
        paths.push(path);
    }
    let digest = tree.encode(function, &mut |encoded| {
        blobs.insert(encoded.digest, Blob::Bytes(Bytes::from(encoded.data)));
    });
    let mut scanned = Scanned::of(project.scan.root.clone(), digest, blobs);
    (scanned.files, scanned.paths) = (paths.len(), paths);
    Ok(scanned)
}

/// Adds what the Dockerfiles of a plan copy from.
fn with_contexts(
    project: &Project,
    mut scanned: Scanned,
    plan: &Plan,
    is_of_dockerfiles: bool,
    meter: &Meter,
) -> Result<Sources, Error> {
    let mut found: BTreeMap<(String, String), Entry> = BTreeMap::new();
    let mut contexts = Vec::new();
    // Times are of contexts only: nothing else needs them.
    scanned.times = Times::default();
    for dockerfile in dockerfiles(plan) {
        let own = [(dockerfile.file.as_str(), dockerfile.context.as_str())].into_iter();
        let others = dockerfile.contexts.values().filter_map(|value| Some(("", local_path(value)?)));
        for (file, context) in own.chain(others) {
            let key = (file.to_owned(), context.to_owned());
            if found.contains_key(&key) {
                continue;
            }
            let Some(mut sent) = scan(project, file, context, meter)? else { continue };
            let place = path(&found.len().to_string());
            let moved = |name: Vec<u8>| [place.as_bytes(), b"/", &name].concat();
            let times = std::mem::take(&mut sent.times.0).into_iter();
            scanned.times.0.append(&mut times.map(|(name, time)| (moved(name), time)).collect());
            scanned.files = scanned.files.saturating_add(sent.files);
            scanned.hashed = scanned.hashed.saturating_add(sent.hashed);
            scanned.extend(sent.blobs());
            found.insert(key, Entry::Sealed { digest: sent.digest });
            contexts.push(SourceContext { path: context.to_owned(), file: file.to_owned(), place });
        }
    }
    if contexts.is_empty() {
        return Ok(Sources { scanned, contexts, is_of_dockerfiles });
    }
    let function = project.scan.function;
    let mut tree = match scanned.held(&scanned.digest) {
        Some(data) => Directory::decode(data.clone())
            .map_err(std::io::Error::other)
            .map_err(|source| Error::Read { path: project.scan.root.clone(), source })
            .and_then(|directory| Ok(Tree::from_directory(function, &directory)?))?,
        None => Tree::default(),
    };
    for context in &contexts {
        if let Some(entry) = found.remove(&(context.file.clone(), context.path.clone())) {
            tree.replace(&context.place, entry)?;
        }
    }
    let mut directories = Vec::new();
    scanned.digest = tree.encode(function, &mut |encoded| {
        directories.push((encoded.digest, Blob::Bytes(Bytes::from(encoded.data))));
    });
    scanned.extend(directories);
    scanned.add_times(function);
    Ok(Sources { scanned, contexts, is_of_dockerfiles })
}

/// The path of a named context that is a directory of the project.
fn local_path(value: &str) -> Option<&str> {
    match value.strip_prefix(LAYOUT) {
        Some(path) => path.split(['@', ':']).next(),
        None => (!value.contains("://")).then_some(value),
    }
}

/// What `.dockerignore` leaves of a directory of the project; `None` if there is no such directory.
fn scan(project: &Project, file: &str, context: &str, meter: &Meter) -> Result<Option<Scanned>, Error> {
    let root = &project.scan.root;
    let Ok(directory) = root.join(context).canonicalize() else { return Ok(None) };
    if !directory.is_dir() || !directory.starts_with(root) {
        return Ok(None);
    }
    let own = root.join(format!("{file}{}", local::IGNORE));
    let ignored = match (!file.is_empty()).then(|| local::read(&own)).transpose()?.flatten() {
        Some(ignored) => Some(ignored),
        None => local::ignore_of(&directory)?,
    };
    let keeps = without_output(local::keeps(ignored.as_ref()), directory.clone());
    let keeps = if project.has_git_files { keeps } else { without_git(keeps) };
    let options =
        kiln_scan::Options { root: directory, parts: Vec::new(), files: Files::Context(keeps), ..project.scan.clone() };
    Ok(Some(kiln_scan::scan_metered(&options, meter)?))
}

/// A context never has what Kiln itself wrote: an image of the last build would change the next one.
fn without_output(keeps: Keeps, directory: PathBuf) -> Keeps {
    Keeps::new(move |path, is_directory| {
        let full = || directory.join(path);
        let is_output = match is_directory {
            true => full().join(OUTPUT_RECORD).is_file(),
            false => path.rsplit('/').next() == Some(SHARED_OUTPUT_RECORD),
        };
        if is_output { Kept::No } else { keeps.of(path, is_directory) }
    })
}

fn without_git(keeps: Keeps) -> Keeps {
    Keeps::new(move |path, is_directory| match path.rsplit('/').next() {
        Some(".git") => Kept::No,
        _ => keeps.of(path, is_directory),
    })
}

fn below(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}
