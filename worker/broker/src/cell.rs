//! Runs a call in a sandbox of its own, a cell, and finds out what its result depends on.
//!
//! A cell has the step's inputs and those files of the step that the call may need. Everything that the call looked at is compared with
//! the step's own files afterwards: only if both are the same is the result that of the step's call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_calls::manifest::{Read, Variant};
use kiln_calls::{Call, Details, Kind};
use kiln_executor::calls::{Accesses, Limits};
use kiln_executor::{Chunk, Executor, Exit, Finished, Job, Place, Rooted, Secrets, Stream};
use kiln_inputs::{Content, Delta, DeltaFile, Inputs};
use kiln_proto::digest::Digest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::area::Area;
use super::early::{Early, Given, Shim};
use super::sight::Sight;
use super::view::{Directories, Node, View, plain};

/// Maximum bytes that a call prints.
const MAX_PRINTED: usize = 8 << 20;
/// Maximum bytes that a call writes.
const DISK_BYTES: u64 = 8 << 30;
/// Longest run of a call.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// Files that differ between machines with the same packages, and that no result depends on.
const IGNORED: [&str; 1] = ["/etc/ld.so.cache"];

/// Files of a root over which the sandbox mounts its own.
const POINTS: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// Why a call has no result of its own, as a label.
pub(super) type Reason = &'static str;

/// What a cell is made of.
#[derive(Debug, Clone)]
pub(super) struct Parent {
    pub(super) tenant: String,
    pub(super) place: Place,
    pub(super) layers: Vec<PathBuf>,
    pub(super) milli_cpus: u32,
    pub(super) memory_bytes: u64,
    pub(super) max_processes: u32,
    pub(super) limits: Limits,
}

/// A call that ended well.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) outputs: Vec<Made>,
    pub(super) variant: Variant,
    pub(super) wall: Duration,
    /// What the shim has been given already.
    pub(super) given: Given,
    /// The workers that made it, if it ran elsewhere.
    pub(super) makers: BTreeMap<String, kiln_proto::made::Times>,
    /// Keeps the outputs in place.
    pub(super) _kept: Kept,
}

/// What keeps a call's outputs in place.
#[derive(Debug)]
#[allow(dead_code)]
pub(super) enum Kept {
    /// They are where the call made them.
    Here(Box<Finished>),
    /// They were fetched.
    Fetched(Content),
}

/// An output.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// The absolute path in the step.
    pub(super) path: PathBuf,
    pub(super) executable: bool,
    pub(super) digest: Digest,
    /// Where it is now.
    pub(super) file: PathBuf,
}

/// A call to be run.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) executor: Arc<dyn Executor>,
    pub(super) inputs: Inputs,
    pub(super) parent: Parent,
    pub(super) step: Arc<View>,
}

/// What a call may need of the step's own making.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Paths of files, on which no symbolic link lies.
    pub(super) files: BTreeSet<PathBuf>,
    /// Symbolic links, with where they lead.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
}

impl Cell {
    /// Runs the call, or says why it has no result. The shim gets what is announced before the end, if there is one.
    pub(super) async fn run(
        &self,
        call: &Call,
        needs: Needs,
        shim: Option<Shim>,
        cancel: CancellationToken,
    ) -> Result<Ran, Reason> {
        let (inputs, step) = (self.inputs.clone(), self.step.clone());
        let laid = tokio::task::spawn_blocking(move || lay(&inputs, &step, needs));
        let (delta, delivered) = laid.await.map_err(|_| "worker")??;
        let delivered = Arc::new(delivered);
        let (step, begun) = (self.step.clone(), tokio::sync::watch::Sender::new(None));
        let mut early = Early { call: call.clone(), step, delivered: delivered.clone(), begun, shim, given: None };
        let mut job = self.job(call, &delta)?;
        if matches!(&call.details, Details::Rust(details) if details.announces_artifacts) {
            job.calls.followed = Some(early.begun.clone());
        }
        let (finished, stdout, stderr) = self.execute(job, Some(&mut early), cancel).await?;
        if finished.exit != Exit::Code(0) {
            // What it says is the truth only if it says it in the step.
            return Err("failed");
        }
        let Some(accesses) = finished.accesses.clone().filter(|seen| !seen.incomplete) else {
            return Err("unrecorded");
        };
        let (step, outputs) = (self.step.clone(), call.outputs.clone());
        let searched = searched(call);
        let checked = tokio::task::spawn_blocking(move || {
            let _keep = delta;
            let area = step.area();
            let root = if area == Area::Root { Some(finished.tree.root()) } else { finished.tree.root().parent() };
            let cell = step.of_cell(root.ok_or("worker")?).map_err(|_| "worker")?;
            let had = Had::Here { cell: &cell, delivered: &delivered };
            let variant = observed(&accesses, &step, had, &searched, &outputs)?;
            let made = made(&finished, &cell, &outputs)?;
            Ok::<_, Reason>((finished, variant, made))
        });
        let (finished, variant, outputs) = checked.await.map_err(|_| "worker")??;
        let given = early.given.unwrap_or_default();
        if !given.is_among(&outputs) {
            return Err("changed_meanwhile");
        }
        Ok(Ran {
            stdout,
            stderr,
            outputs,
            variant,
            wall: finished.wall,
            given,
            makers: BTreeMap::new(),
            _kept: Kept::Here(Box::new(finished)),
        })
    }

    /// What the call's driver writes to standard error when it is called with other arguments.
    pub(super) async fn ask(
        &self,
        call: &Call,
        arguments: &[std::ffi::OsString],
        cancel: CancellationToken,
    ) -> Result<String, Reason> {
        let inputs = self.inputs.clone();
        let delta = tokio::task::spawn_blocking(move || inputs.delta(Vec::new(), &BTreeMap::new())).await;
        let (delta, _) = delta.map_err(|_| "worker")?.map_err(|_| "worker")?;
        let question = Call { arguments: arguments.to_vec(), outputs: Vec::new(), ..call.clone() };
        let (_, _, stderr) = self.execute(self.job(&question, &delta)?, None, cancel).await?;
        String::from_utf8(stderr).map_err(|_| "not_text")
    }

    /// The call as a job, with this layer above the step's inputs.
    pub(super) fn job(&self, call: &Call, delta: &Delta) -> Result<Job, Reason> {
        let text = |text: &std::ffi::OsStr| text.to_str().map(str::to_owned).ok_or("not_text");
        let mut arguments = vec![text(&call.program)?];
        for argument in &call.arguments {
            arguments.push(text(argument)?);
        }
        let mut environment = BTreeMap::new();
        for (name, value) in &call.environment {
            environment.insert(text(name)?, text(value)?);
        }
        let area = self.step.area();
        // In a root of its own they are absolute.
        let relative = |path: &Path| match area {
            Area::Build => text(area.below(path).ok_or("outside")?.as_os_str()),
            Area::Root => text(area.below(path).map(|_| path).ok_or("outside")?.as_os_str()),
        };
        let working_directory = match &self.parent.place {
            Place::Root(_) => text(call.directory.as_os_str())?,
            _ => relative(&call.directory)?,
        };
        let mut make_directories = vec![];
        for output in &call.outputs {
            make_directories.push(relative(output.absolute.parent().ok_or("outside")?)?);
        }
        make_directories.push(relative(&call.directory)?);
        for directory in self.looked_into(call) {
            make_directories.push(relative(directory)?);
        }
        make_directories.sort();
        make_directories.dedup();
        make_directories.retain(|path| !path.is_empty());
        let mut job = Job {
            place: self.parent.place.clone(),
            tenant: self.parent.tenant.clone(),
            layers: self.parent.layers.clone(),
            arguments,
            environment,
            secrets: Secrets::default(),
            working_directory,
            make_directories,
            beside: Vec::new(),
            network: false,
            timeout: Some(TIMEOUT),
            milli_cpus: self.parent.milli_cpus,
            memory_bytes: self.parent.memory_bytes,
            disk_bytes: DISK_BYTES,
            max_processes: self.parent.max_processes,
            calls: kiln_executor::calls::Calls {
                offer: None,
                part_of: Some(self.parent.limits.clone()),
                recorded: true,
                followed: None,
            },
            session: None,
            conditions: Default::default(),
            usage: None,
        };
        let delta = delta.path().to_owned();
        match &self.parent.place {
            Place::Root(rooted) if area == Area::Build => {
                let mut inputs = rooted.inputs.clone().unwrap_or_default();
                inputs.insert(0, delta);
                job.place = Place::Root(Arc::new(Rooted { inputs: Some(inputs), ..(**rooted).clone() }));
            }
            _ => job.layers.insert(0, delta),
        }
        Ok(job)
    }

    /// Directories of the inputs, and of the step's own making, that the call is told to look into.
    pub(super) fn looked_into<'a>(&self, call: &'a Call) -> Vec<&'a Path> {
        let all: Vec<&Path> = match &call.details {
            Details::C(details) => {
                details.search.directories.iter().map(|directory| directory.path.as_path()).collect()
            }
            Details::Rust(details) => {
                let searched = details.dependency_directories.iter().chain(&details.native_directories);
                searched.chain(&details.out_dir).map(PathBuf::as_path).collect()
            }
        };
        let is_there = |path: &&Path| self.step.area().has(path) && matches!(self.step.look(path), Ok(Node::Directory));
        all.into_iter().filter(is_there).collect()
    }

    async fn execute(
        &self,
        job: Job,
        mut early: Option<&mut Early>,
        cancel: CancellationToken,
    ) -> Result<(Finished, Vec<u8>, Vec<u8>), Reason> {
        let cancel = cancel.child_token();
        let (sender, mut receiver) = mpsc::channel::<Chunk>(16);
        let follow = async {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let mut refused = None;
            while let Some(Chunk { stream, data }) = receiver.recv().await {
                let to = if stream == Stream::Stdout { &mut stdout } else { &mut stderr };
                to.extend_from_slice(&data[..data.len().min((MAX_PRINTED + 1).saturating_sub(to.len()))]);
                if let (Stream::Stderr, Some(early), None) = (stream, &mut early, refused)
                    && let Err(reason) = early.said(&stderr).await
                {
                    refused = Some(reason);
                    cancel.cancel();
                }
            }
            (stdout, stderr, refused)
        };
        let running = self.executor.run(job, sender, cancel.clone());
        let (finished, (stdout, stderr, refused)) = tokio::join!(running, follow);
        if let Some(reason) = refused {
            return Err(reason);
        }
        let finished = finished.map_err(|error| {
            tracing::debug!(%error, "cannot run a call");
            "worker"
        })?;
        if stdout.len() > MAX_PRINTED || stderr.len() > MAX_PRINTED {
            return Err("too_large");
        }
        Ok((finished, stdout, stderr))
    }
}

/// Files of the step's own making, by path, as the cell has them.
pub(super) type Delivered = BTreeMap<PathBuf, Digest>;

/// Where a call ran, and what was there.
#[derive(Clone, Copy)]
pub(super) enum Had<'a> {
    /// In a cell on the step's own system.
    Here {
        /// The cell's files.
        cell: &'a View,
        /// Those of them that are the step's own.
        delivered: &'a Delivered,
    },
    /// On another worker.
    Elsewhere(&'a Sight),
}

impl Had<'_> {
    /// Whether a path has to be compared: a cell has the same system as its step, unless that has one of its own.
    fn is_compared(self, step: &View, path: &Path) -> bool {
        step.is_own(path) || matches!(self, Self::Elsewhere(_))
    }

    /// The directories that are worth to be listed for these paths.
    fn directories<'a>(self, paths: impl Iterator<Item = &'a Path>) -> Directories {
        match self {
            Self::Here { cell, .. } => cell.directories(paths),
            Self::Elsewhere(_) => Directories::default(),
        }
    }

    /// What there was, as far as that is known.
    fn kind(self, path: &Path) -> Option<Kind> {
        self.kind_within(&Directories::default(), path)
    }

    /// The same, in directories that have been listed.
    fn kind_within(self, directories: &Directories, path: &Path) -> Option<Kind> {
        match self {
            Self::Here { cell, .. } => match cell.look_within(directories, path) {
                Ok(Node::Absent) => None,
                Ok(Node::Directory) => Some(Kind::Directory),
                Ok(Node::File(_)) => Some(Kind::File),
                Ok(Node::Other) | Err(_) => Some(Kind::Other),
            },
            Self::Elsewhere(sight) => sight.kind(path),
        }
    }

    /// A file as the call had it.
    fn read(self, step: &View, path: &Path) -> Result<Read, Reason> {
        match self {
            Self::Here { cell, delivered } => read_in(cell, step, path, delivered),
            Self::Elsewhere(sight) => sight.file(path).ok_or_else(|| differs(path)),
        }
    }

    fn listing(self, path: &Path) -> Option<Digest> {
        match self {
            Self::Here { cell, .. } => cell.listing_of(path).ok(),
            Self::Elsewhere(sight) => sight.listing(path),
        }
    }
}

/// Makes the layer with the step's own files. One that is gone or changes meanwhile is left out: the comparison afterwards finds out.
pub(super) fn lay(inputs: &Inputs, step: &View, needs: Needs) -> Result<(Delta, Delivered), Reason> {
    let (mut files, area) = (Vec::new(), step.area());
    for path in needs.files {
        let Some(below) = area.below(&path) else { continue };
        let Some(place) = step.look_at_own(below) else { continue };
        let (Ok(content), Ok(digest)) = (step.open_place(&place), step.digest_of(&path, &place)) else { continue };
        files.push(DeltaFile { path: below.to_owned(), digest, executable: place.executable, content });
    }
    let below = |(path, target): (&PathBuf, &PathBuf)| Some((area.below(path)?.to_owned(), target.clone()));
    let links = needs.links.iter().filter_map(below).collect();
    let (delta, delivered) = inputs.delta(files, &links).map_err(|error| {
        tracing::warn!(%error, "cannot make the layer of a call");
        "worker"
    })?;
    Ok((delta, delivered.into_iter().map(|(below, digest)| (area.join(&below), digest)).collect()))
}

/// What the result depends on, if the call saw what it would have seen in the step.
pub(super) fn observed(
    accesses: &Accesses,
    step: &View,
    had: Had<'_>,
    searched: &[PathBuf],
    outputs: &[kiln_calls::Output],
) -> Result<Variant, Reason> {
    let is_searched = |path: &Path| searched.iter().any(|directory| path.starts_with(directory));
    let mut variant = Variant::default();
    let mut paths: Vec<PathBuf> = accesses.paths.iter().map(|path| plain(path)).collect();
    paths.retain(|path| !is_ignored(path) && outputs.iter().all(|output| output.absolute != *path));
    // Most of them are not there, in a few directories.
    let every = || paths.iter().map(PathBuf::as_path);
    let (of_step, of_cell) = (step.directories(every()), had.directories(every().filter(|path| step.is_own(path))));
    let mut absent = Vec::new();
    for path in &paths {
        let there = step.look_within(&of_step, path).map_err(|_| "unreadable")?;
        if path.starts_with("/tmp") {
            // The cell's own is empty.
            if matches!(there, Node::File(_) | Node::Other) {
                return Err("reads_tmp");
            }
            continue;
        }
        let is_compared = had.is_compared(step, path);
        match there {
            // Temporary files of the compiler's own, which need not be gone.
            Node::Absent if is_searched(path) => {}
            Node::Absent if is_compared && had.kind_within(&of_cell, path).is_some() => return Err(differs(path)),
            Node::Absent => absent.push(path.clone()),
            Node::Directory if is_compared && had.kind(path) != Some(Kind::Directory) => return Err(differs(path)),
            Node::Directory => {}
            Node::Other if step.area().has(path) => return Err("special_file"),
            Node::Other => {}
            Node::File(place) => {
                let digest = step.digest_of(path, &place).map_err(|_| "changed_meanwhile")?;
                let read = Read { digest, executable: place.executable };
                if is_compared && had.read(step, path)? != read {
                    return Err(differs(path));
                }
                variant.read.insert(path.clone(), read);
            }
        }
    }
    variant.absent = absent.into_iter().collect();
    for path in &accesses.listed {
        let path = plain(path);
        if is_ignored(&path) || path.starts_with("/tmp") || searched.contains(&path) {
            continue;
        }
        let (here, there) = (had.listing(&path), step.listing_of(&path));
        match (here, there) {
            (Some(here), Ok(there)) if here == there => drop(variant.listed.insert(path, here)),
            // A directory of the call's own, or one that is not there.
            (_, Err(_)) if matches!(step.look(&path), Ok(Node::Absent)) => {}
            _ => return Err(differs(&path)),
        }
    }
    Ok(variant)
}

/// The cell and the step differ at this path.
fn differs(path: &Path) -> Reason {
    tracing::debug!(path = %path.display(), "a call did not see what it would have seen in its step");
    "differs"
}

/// Directories in which rustc finds crates by names that contain their hashes, and in which it makes files of its own: other files in
/// them make no difference.
pub(super) fn searched(call: &Call) -> Vec<PathBuf> {
    let Details::Rust(details) = &call.details else { return Vec::new() };
    let made = call.outputs.iter().filter_map(|output| output.absolute.parent()).map(Path::to_owned);
    details.dependency_directories.iter().cloned().chain(made).collect()
}

/// Whether nothing depends on a path: it is the kernel's, or generated by each machine for itself.
fn is_ignored(path: &Path) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|kernel| path.starts_with(kernel))
        || IGNORED.iter().any(|ignored| path == Path::new(ignored))
}

/// A file as the cell had it.
fn read_in(cell: &View, step: &View, path: &Path, delivered: &Delivered) -> Result<Read, Reason> {
    let Ok(Node::File(place)) = cell.look(path) else { return Err(differs(path)) };
    let known = delivered.get(path).copied().or_else(|| step.noted(path, &place.stamp));
    let digest = match known {
        Some(digest) => digest,
        None => cell.digest_of(path, &place).map_err(|_| "unreadable")?,
    };
    Ok(Read { digest, executable: place.executable })
}

/// The outputs that a call made, if it made no others.
fn made(finished: &Finished, cell: &View, outputs: &[kiln_calls::Output]) -> Result<Vec<Made>, Reason> {
    let written = finished.tree.written().ok_or("worker")?;
    let mut left = BTreeSet::new();
    files_below(written, cell.area().path(), &mut left).map_err(|_| "worker")?;
    // Mount points that the root did not have.
    left.retain(|path| !POINTS.iter().any(|point| path == Path::new(point)));
    let mut made = Vec::new();
    for output in outputs {
        let Ok(Node::File(place)) = cell.look(&output.absolute) else {
            if output.required {
                return Err("no_output");
            }
            continue;
        };
        if !left.remove(&output.absolute) {
            // It lay among the inputs, and the call did not touch it.
            continue;
        }
        let below = cell.area().below(&output.absolute).ok_or("outside")?;
        // A link would lead this process out of the cell's root.
        if !written.join(below).symlink_metadata().is_ok_and(|data| data.is_file()) {
            return Err("output_not_a_file");
        }
        let digest = cell.digest_of(&output.absolute, &place).map_err(|_| "unreadable")?;
        let file = finished.tree.root().join(below);
        made.push(Made { path: output.absolute.clone(), executable: place.executable, digest, file });
    }
    if left.is_empty() { Ok(made) } else { Err("unforeseen_output") }
}

/// Everything but directories below a directory, as paths below `at`.
pub(super) fn files_below(directory: &Path, at: &Path, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let at = at.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            files_below(&entry.path(), &at, found)?;
        } else {
            found.insert(at);
        }
    }
    Ok(())
}
