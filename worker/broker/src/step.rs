//! One step whose calls are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_call::{Ask, DIRECTORY, KEPT, PROGRAMS, SWITCH};
use kiln_calls::manifest::{self, Manifest, Toolchain};
use kiln_calls::{Call, Details, Invocation};
use kiln_executor::calls::Begun;
use kiln_executor::rooted::{Mount, What};
use kiln_executor::{Job, Place, Rooted};
use kiln_proto::digest::{Digest, DigestFunction};
use parking_lot::Mutex;

use super::Shared;
use super::ahead::Ahead;
use super::area::Area;
use super::cell::{Cell, Parent, Reason};
use super::cpu;
use super::farm::Farm;
use super::places::Places;
use super::spread::Room;
use super::tally::{Calls, Tally};
use super::told::Told;
use super::tools::Tools;
use super::verify::Samples;
use super::view::{Node, View};

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
    /// The step's command.
    pub(super) command: Digest,
    pub(super) ahead: Ahead,
    /// One place for each CPU that the step has.
    pub(super) places: Places,
    pub(super) room: Room,
    /// Whether it calls more compilers at once than it has CPUs.
    pub(super) is_spread: bool,
    pub(super) tally: Tally,
    pub(super) samples: Samples,
    pub(super) told: Told,
    /// Whether its calls of compilers are carried out here.
    pub(super) splits: bool,
    /// Where the entries of its build tools are, if it has any.
    pub(super) tools: Option<Tools>,
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
    pub(super) fn new(
        shared: Arc<Shared>,
        job: &Job,
        (root, command): (Digest, Digest),
        farm: Farm,
        (splits, room, tools): (bool, usize, Option<Tools>),
    ) -> Self {
        let samples = Samples::new(shared.verified_percent);
        Self {
            shared,
            farm,
            root,
            command,
            ahead: Ahead::default(),
            places: Places::new(places(job)),
            room: Room::of(room),
            is_spread: room > 0,
            tally: Tally::default(),
            samples,
            told: Told::default(),
            splits,
            tools,
            job: job.clone(),
            view: Mutex::default(),
            manifests: Mutex::default(),
            learned: Mutex::default(),
        }
    }

    pub(super) fn calls(&self) -> Calls {
        Calls {
            is_wrong: self.samples.found_wrong(),
            facts: self.told.facts(),
            makers: self.farm.makers.all(),
            ..self.tally.calls()
        }
    }

    /// The step's files, as its processes see them.
    pub(super) fn view(&self, begun: &Begun) -> std::io::Result<Arc<View>> {
        let mut view = self.view.lock();
        if let Some(view) = &*view {
            return Ok(view.clone());
        }
        let opened = match &self.job.place {
            Place::Root(rooted) => View::open(&begun.root()?, Area::of(rooted), None)?,
            _ => View::open(&begun.root()?, Area::Build, Some(self.shared.system.clone()))?,
        };
        let opened = Arc::new(opened);
        *view = Some(opened.clone());
        Ok(opened)
    }

    /// What makes a cell of this step.
    pub(super) fn cell(&self, begun: &Begun, view: Arc<View>) -> Cell {
        let parent = Parent {
            tenant: self.job.tenant.clone(),
            place: self.place_of_cells(),
            layers: self.job.layers.clone(),
            milli_cpus: self.job.milli_cpus,
            memory_bytes: self.job.memory_bytes,
            max_processes: self.job.max_processes,
            limits: begun.limits.clone(),
        };
        Cell { executor: self.shared.executor.clone(), inputs: self.shared.inputs.clone(), parent, step: view }
    }

    /// Where cells run: where the step does, without what only the step has.
    fn place_of_cells(&self) -> Place {
        let Place::Root(rooted) = &self.job.place else { return self.job.place.clone() };
        let is_apart = |mount: &&Mount| matches!(mount.what, What::Memory { .. });
        let mounts = rooted.mounts.iter().filter(is_apart).cloned().collect();
        Place::Root(Arc::new(Rooted { mounts, secret_variables: Vec::new(), ..(**rooted).clone() }))
    }

    /// Whether a call is at, or looks into, something that is mounted in the step and that cells do not have.
    pub(super) fn reads_mounts(&self, call: &Call) -> bool {
        let Place::Root(rooted) = &self.job.place else { return false };
        let is_mounted = |path: &PathBuf| {
            let is_kept = |what: &What| matches!(what, What::Memory { .. });
            rooted.mounts.iter().any(|mount| !is_kept(&mount.what) && path.starts_with(&mount.target))
        };
        searched(call).into_iter().chain([&call.source, &call.directory]).any(is_mounted)
    }

    pub(super) fn manifest(&self, key: &Digest) -> Option<Arc<Manifest>> {
        self.manifests.lock().get(&key.hash).cloned()
    }

    pub(super) fn remember_unless_known(&self, key: &Digest, manifest: Arc<Manifest>) {
        if self.manifest(key).is_none() {
            self.remember(key, manifest);
        }
    }

    pub(super) fn remember(&self, key: &Digest, manifest: Arc<Manifest>) {
        let mut manifests = self.manifests.lock();
        if manifests.len() >= MAX_MANIFESTS {
            manifests.clear();
        }
        manifests.insert(key.hash, manifest);
    }

    /// Files of its own making that calls needed and were not foreseen.
    pub(super) fn learned(&self) -> Vec<PathBuf> {
        self.learned.lock().iter().cloned().collect()
    }

    /// Calls of this step need these files of its own making.
    pub(super) fn learn(&self, paths: impl IntoIterator<Item = PathBuf>) {
        self.learned.lock().extend(paths);
    }
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
    let area = view.area();
    let named = call.outputs.iter().map(|output| &output.absolute).chain([&call.directory, &call.source]);
    if !named.clone().all(|path| area.has(path)) {
        return Err("outside");
    }
    // A file that appears there later would not be noticed: what lies there is not compared.
    if searched(call).iter().any(|directory| directory.starts_with("/tmp")) {
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
    if matches!(&call.details, Details::Rust(details) if details.native) {
        hasher.update(&cpu::identity().ok_or("native")?.hash);
    }
    Ok(hasher.finish())
}

/// Where a call is told to look.
fn searched(call: &Call) -> Vec<&PathBuf> {
    match &call.details {
        Details::C(details) => details.search.directories.iter().map(|directory| &directory.path).collect(),
        Details::Rust(details) => details.dependency_directories.iter().chain(&details.native_directories).collect(),
    }
}

/// The driver's program, which must be the system's.
pub(super) fn driver(call: &Call, view: &View) -> Result<Digest, Reason> {
    let program = Path::new(&call.program);
    // In a root that the step changes, what it reads is compared in any case, and the compiler with it.
    let is_own = view.area() == Area::Build && Area::Build.has(program);
    match view.look(program) {
        Ok(Node::File(place)) if !is_own && !program.starts_with("/tmp") => {
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
