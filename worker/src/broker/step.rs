//! One step whose calls are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_call::{Ask, DIRECTORY, KEPT, PROGRAMS, SWITCH};
use kiln_calls::manifest::{self, Manifest, Toolchain};
use kiln_calls::{Call, Details, Invocation};
use kiln_executor::calls::Begun;
use kiln_executor::{BUILD, Job};
use kiln_proto::digest::{Digest, DigestFunction};
use parking_lot::Mutex;

use super::Shared;
use super::cell::{Cell, Needs, Parent, Reason};
use super::elsewhere::Sent;
use super::farm::Farm;
use super::places::Places;
use super::spread::Room;
use super::tally::{Calls, Tally};
use super::view::{Node, View};

/// Largest file of the step's own making that calls get without having asked for it.
const MAX_OWN_BYTES: u64 = 4 << 20;
/// Maximum number of such files.
const MAX_OWN_FILES: usize = 4000;
/// Extensions of what steps make in numbers and compilers do not read.
const MADE: [&str; 14] = ["o", "lo", "a", "la", "so", "d", "Po", "Plo", "Tpo", "dwo", "gcno", "gcda", "rlib", "rmeta"];
/// The variable with the time that stands for now.
const CLOCK: &str = "SOURCE_DATE_EPOCH";
/// Maximum number of manifests that a step remembers.
const MAX_MANIFESTS: usize = 20_000;

/// A step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) shared: Arc<Shared>,
    pub(super) farm: Farm,
    /// The step's input tree.
    pub(super) root: Digest,
    /// One place for each CPU that the step has.
    pub(super) places: Places,
    pub(super) room: Room,
    /// Whether it calls more compilers at once than it has CPUs.
    pub(super) is_spread: bool,
    pub(super) sent: Sent,
    pub(super) tally: Tally,
    job: Job,
    view: Mutex<Option<Arc<View>>>,
    manifests: Mutex<BTreeMap<[u8; 32], Arc<Manifest>>>,
    /// What calls needed that could not be foreseen.
    learned: Mutex<BTreeSet<PathBuf>>,
}

/// How many calls a job runs at once: one for each of its CPUs.
pub(super) fn places(job: &Job) -> usize {
    job.milli_cpus.div_ceil(1000).max(1) as usize
}

impl Step {
    /// A step on this input tree, with room for so many of its calls on the farm.
    pub(super) fn new(shared: Arc<Shared>, job: &Job, root: Digest, farm: Farm, room: usize) -> Self {
        Self {
            shared,
            farm,
            root,
            places: Places::new(places(job)),
            room: Room::of(room),
            is_spread: room > 0,
            sent: Sent::default(),
            tally: Tally::default(),
            job: job.clone(),
            view: Mutex::default(),
            manifests: Mutex::default(),
            learned: Mutex::default(),
        }
    }

    pub(super) fn calls(&self) -> Calls {
        self.tally.calls()
    }

    /// The step's files, as its processes see them.
    pub(super) fn view(&self, begun: &Begun) -> std::io::Result<Arc<View>> {
        let mut view = self.view.lock();
        if let Some(view) = &*view {
            return Ok(view.clone());
        }
        let opened = Arc::new(View::open(&begun.root()?, self.shared.system.clone())?);
        *view = Some(opened.clone());
        Ok(opened)
    }

    /// What makes a cell of this step.
    pub(super) fn cell(&self, begun: &Begun, view: Arc<View>) -> Cell {
        let parent = Parent {
            tenant: self.job.tenant.clone(),
            layers: self.job.layers.clone(),
            milli_cpus: self.job.milli_cpus,
            memory_bytes: self.job.memory_bytes,
            max_processes: self.job.max_processes,
            limits: begun.limits.clone(),
        };
        Cell { executor: self.shared.executor.clone(), inputs: self.shared.inputs.clone(), parent, step: view }
    }

    pub(super) fn manifest(&self, key: &Digest) -> Option<Arc<Manifest>> {
        self.manifests.lock().get(&key.hash).cloned()
    }

    pub(super) fn remember(&self, key: &Digest, manifest: Arc<Manifest>) {
        let mut manifests = self.manifests.lock();
        if manifests.len() >= MAX_MANIFESTS {
            manifests.clear();
        }
        manifests.insert(key.hash, manifest);
    }

    /// Calls of this step need these files of its own making.
    pub(super) fn learn(&self, paths: impl IntoIterator<Item = PathBuf>) {
        self.learned.lock().extend(paths);
    }

    /// The files of the step's own making that a call may need: whatever it may include, and what calls like it read before.
    pub(super) fn needs(&self, begun: &Begun, call: &Call, nearest: Option<&manifest::Variant>) -> Needs {
        let mut found = Vec::new();
        own_files(&begun.written, Path::new(BUILD), &mut found);
        let mut needs: BTreeSet<PathBuf> = found.into_iter().collect();
        let is_own = |path: &PathBuf| {
            let below = path.strip_prefix(BUILD).ok();
            below.is_some_and(|below| begun.written.join(below).symlink_metadata().is_ok())
        };
        let read = nearest.into_iter().flat_map(|variant| variant.read.keys());
        let named = call.inputs.iter().map(|input| &input.path).chain([&call.source]);
        needs.extend(read.chain(named).filter(|path| is_own(path)).cloned());
        needs.extend(of_rust(begun, call));
        needs.extend(self.learned.lock().iter().filter(|path| is_own(path)).cloned());
        needs.retain(|path| !call.outputs.iter().any(|output| output.absolute == *path));
        Needs(needs)
    }
}

/// The files below the directory to which a step writes, as the step calls them, but those that compilers do not read.
fn own_files(directory: &Path, at: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (at, name) = (at.join(entry.file_name()), entry.file_name());
        let Ok(data) = entry.metadata() else { continue };
        if found.len() >= MAX_OWN_FILES {
            return;
        }
        if data.is_dir() {
            own_files(&entry.path(), &at, found);
        } else if data.is_file() && data.len() <= MAX_OWN_BYTES && !is_made(&name) {
            found.push(at);
        }
    }
}

/// What a call of rustc may need of the step's own making: crates, and what build scripts left.
fn of_rust(begun: &Begun, call: &Call) -> Vec<PathBuf> {
    let Details::Rust(details) = &call.details else { return Vec::new() };
    let mut found = Vec::new();
    let mut all_of = |directory: &PathBuf, wanted: &dyn Fn(&OsStr) -> bool, is_deep: bool| {
        if let Ok(below) = directory.strip_prefix(BUILD) {
            all_below(&begun.written.join(below), directory, is_deep, wanted, &mut found);
        }
    };
    let is_crate = |name: &OsStr| match Path::new(name).extension().and_then(OsStr::to_str) {
        Some("rmeta" | "so") => true,
        Some("rlib") => details.needs_code(),
        _ => false,
    };
    details.dependency_directories.iter().for_each(|directory| all_of(directory, &is_crate, false));
    details.native_directories.iter().for_each(|directory| all_of(directory, &|_| true, true));
    details.out_dir.iter().for_each(|directory| all_of(directory, &|_| true, true));
    found
}

fn all_below(directory: &Path, at: &Path, is_deep: bool, wanted: &dyn Fn(&OsStr) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (at, name) = (at.join(entry.file_name()), entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && is_deep => all_below(&entry.path(), &at, is_deep, wanted, found),
            Ok(kind) if kind.is_file() && wanted(&name) => found.push(at),
            _ => {}
        }
    }
}

fn is_made(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| MADE.contains(&extension))
}

/// A call as its build tool made it, without what is the farm's own.
pub(super) fn invocation(ask: Ask) -> Invocation {
    let own = Path::new(DIRECTORY).join(PROGRAMS);
    let mut environment: BTreeMap<OsString, OsString> = ask.environment.into_iter().collect();
    environment.remove(OsStr::new(SWITCH));
    environment.remove(OsStr::new(KEPT));
    if let Some(path) = environment.get_mut(OsStr::new("PATH")) {
        let others = std::env::split_paths(path).filter(|directory| *directory != own);
        if let Ok(others) = std::env::join_paths(others) {
            *path = others;
        }
    }
    Invocation { program: ask.program, arguments: ask.arguments, directory: ask.directory.into(), environment }
}

/// What identifies a call before its inputs are known; or why it runs in its step.
pub(super) fn key(call: &Call, view: &View) -> Result<Digest, Reason> {
    let in_build = |path: &Path| path.starts_with(BUILD);
    if !in_build(&call.directory) || !in_build(&call.source) || call.outputs.iter().any(|out| !in_build(&out.absolute))
    {
        return Err("outside");
    }
    let searched: Vec<&PathBuf> = match &call.details {
        Details::C(details) => details.search.directories.iter().map(|directory| &directory.path).collect(),
        Details::Rust(details) => details.dependency_directories.iter().chain(&details.native_directories).collect(),
    };
    // A file that appears there later would not be noticed: what lies there is not compared.
    if searched.iter().any(|directory| directory.starts_with("/tmp")) {
        return Err("reads_tmp");
    }
    if !call.environment.contains_key(OsStr::new(CLOCK)) {
        return Err("clock");
    }
    for output in &call.outputs {
        view.is_plain(&output.absolute)?;
    }
    let Ok(Node::File(place)) = view.look(&call.source) else { return Err("no_source") };
    let source = view.digest_of(&call.source, &place).map_err(|_| "unreadable")?;
    // With the source's content, so that projects whose files have the same names do not take each other's room.
    let mut hasher = DigestFunction::Sha256.hasher();
    hasher.update(&manifest::key(call, &Toolchain(driver(call, view)?)).hash);
    hasher.update(&source.hash);
    Ok(hasher.finish())
}

/// The driver's program, which must be the system's.
pub(super) fn driver(call: &Call, view: &View) -> Result<Digest, Reason> {
    let program = Path::new(&call.program);
    match view.look(program) {
        Ok(Node::File(place)) if !program.starts_with(BUILD) && !program.starts_with("/tmp") => {
            view.digest_of(program, &place).map_err(|_| "unreadable")
        }
        _ => Err("own_compiler"),
    }
}

/// What a call's result is kept under: the call, and everything that it looked at.
pub(super) fn result_key(call: &Digest, variant: &manifest::Variant) -> Result<Digest, Reason> {
    let mut alone = Manifest::default();
    alone.add(variant.clone()).map_err(|_| "too_large")?;
    let mut hasher = DigestFunction::Sha256.hasher();
    hasher.update(b"kiln.calls.result/1\0");
    hasher.update(&call.hash);
    hasher.update(&alone.encode());
    Ok(hasher.finish())
}

/// What a call's manifest is kept under.
pub(super) fn manifest_key(call: &Digest) -> Digest {
    let mut hasher = DigestFunction::Sha256.hasher();
    hasher.update(b"kiln.calls.manifest/1\0");
    hasher.update(&call.hash);
    hasher.finish()
}
