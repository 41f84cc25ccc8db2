//! Compiler calls of steps: answers them from what the farm knows, or runs them as jobs of their own.
//!
//! A step finds a shim under the names of compilers, which asks here, over a socket of the step's own, before it becomes the compiler.
//! Invariants: whatever is not understood or goes wrong ends in the compiler being run in the step, unchanged; what is kept on the farm
//! was made in a sandbox of its own from files that its key names; a call always finds room within its step's own limits.

mod ahead;
mod answer;
mod area;
mod cell;
mod compiler;
mod cpu;
mod early;
mod elsewhere;
mod farm;
mod foresight;
mod goahead;
mod gocache;
mod http;
mod places;
mod programs;
mod reference;
mod sight;
mod spread;
mod step;
mod tally;
mod told;
mod toolcache;
mod tools;
mod touched;
mod verify;
mod view;
mod wire;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_call::{DIRECTORY, GO_FILES, GOCACHE, PROGRAMS, SHIM, SOCKET};
use kiln_calls::scan::Scanner;
use kiln_executor::calls::{Offer, Port};
use kiln_executor::{Executor, Finished, Job};
use kiln_inputs::Inputs;
use kiln_proto::digest::Digest;
use kiln_proto::{reapi, v1};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use compiler::Drivers;
use kiln_gocache::{Shown, Spaces};
use programs::Programs;
use reference::Reference;
use step::Step;
use toolcache::Caches;
use tools::{Beside, Tools};
use view::SystemFiles;

pub use farm::Farm;
pub use kiln_gocache::Sources;
pub use tally::Calls;

/// The variable that names what cargo calls in place of rustc.
const WRAPPER: &str = "RUSTC_WRAPPER";
/// The variable that tells a step how many compilers it may call at once.
const JOBS: &str = "KILN_JOBS";
/// The same for tools that ask for it by names of their own.
const TOOLS_JOBS: [&str; 2] = ["CARGO_BUILD_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL"];
/// Maximum number of compilers that a step may call at once, unless it has more CPUs.
const MAX_JOBS: usize = 128;
/// Maximum number of calls on other workers for each CPU of the step's own.
const MAX_ELSEWHERE: usize = 64;
/// The variables by which CMake gets what it calls compilers through (CMake 3.17).
const LAUNCHERS: [&str; 2] = ["CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"];
/// The variable that names the program that is `go`'s cache.
const GO_CACHE: &str = "GOCACHEPROG";
/// The variables with which a step says where its cache is.
const GO_CACHES: [&str; 2] = [GO_CACHE, "GOCACHE"];
/// How long the end of a step waits until what its calls made is kept.
const KEEPING: Duration = Duration::from_secs(60);
/// The directory of entries of build tools, below the worker's state.
const ENTRIES: &str = "tools";
/// Pause after a call could not be accepted.
const PAUSE: Duration = Duration::from_millis(20);
/// Maximum number of calls of one step that are looked at at once; others wait until one of them is answered.
const MAX_CONNECTIONS: usize = 512;

/// Answers the calls of this worker's steps. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    programs: Programs,
    directory: PathBuf,
    executor: Arc<dyn Executor>,
    inputs: Inputs,
    system: Arc<SystemFiles>,
    /// What drivers have said.
    drivers: Drivers,
    /// What sources and headers include.
    scanner: Scanner,
    /// The system as jobs see it, for calls of other workers' steps.
    reference: tokio::sync::Mutex<Option<Arc<Reference>>>,
    /// How many of a hundred calls whose result was known are compiled again.
    verified_percent: f64,
    barred: verify::Barred,
    /// Entries of build tools.
    entries: Spaces,
    /// Whether steps can be shown entries.
    has_entries: bool,
}

/// The compilers of a step whose calls run as jobs of their own.
#[derive(Clone, Copy)]
pub enum Compilers<'a> {
    /// None.
    None,
    /// Those of the worker's system.
    OfSystem,
    /// Those of the step's root: the names of all of its programs.
    Among(&'a BTreeSet<String>),
}

/// What a step's lease says of its calls.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose calls run as jobs of their own.
    pub compilers: Compilers<'a>,
    /// The space of its build tools' entries, and whether it only reads.
    pub tools: Option<(&'a str, bool)>,
    /// The root that it changes, if it is one that does.
    pub changes: Option<&'a (dyn Sources + Sync)>,
}

/// A step whose calls are answered until this is dropped.
#[derive(Debug)]
pub struct Serving {
    step: Arc<Step>,
    keeping: TaskTracker,
    cancel: CancellationToken,
    accepting: AbortOnDropHandle<()>,
    verifying: AbortOnDropHandle<()>,
    _caching: Option<AbortOnDropHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Broker {
    /// A broker with its files below this directory; `path` has the compilers that it knows. It compiles this percentage of the calls
    /// again whose result was known.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn open(
        directory: &Path,
        path: &str,
        executor: Arc<dyn Executor>,
        inputs: Inputs,
        verified_percent: f64,
    ) -> io::Result<Self> {
        if directory.exists() {
            std::fs::remove_dir_all(directory)?;
        }
        let programs = Programs::write(directory, path)?;
        // Beside the directory, which is not kept.
        let entries = directory.with_file_name(ENTRIES);
        let entries = Spaces::new(entries);
        let has_entries = entries.can_show_in(directory);
        let shared = Shared {
            programs,
            directory: directory.to_owned(),
            executor,
            inputs,
            system: Arc::default(),
            drivers: Drivers::default(),
            scanner: Scanner::default(),
            reference: tokio::sync::Mutex::default(),
            verified_percent,
            barred: verify::Barred::default(),
            entries,
            has_entries,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What a call of another worker's step looked at, after it has run here, on this worker's system or in a root of its own.
    pub async fn sight(&self, finished: &Finished, command: &reapi::Command, in_root: bool) -> v1::CallSight {
        if in_root {
            return sight::describe(finished, command, None);
        }
        let useless = v1::CallSight { incomplete: true, ..Default::default() };
        let reference = match self.reference().await {
            Ok(reference) => reference,
            Err(reason) => {
                tracing::warn!(reason, "cannot say what a call looked at");
                return useless;
            }
        };
        sight::describe(finished, command, Some(&reference.view))
    }

    async fn reference(&self) -> Result<Arc<Reference>, String> {
        let mut reference = self.shared.reference.lock().await;
        if let Some(reference) = reference.as_ref().filter(|reference| reference.is_good()) {
            return Ok(reference.clone());
        }
        Ok(reference.insert(Arc::new(Reference::start(&self.shared).await?)).clone())
    }

    /// Lets a step ask, and answers; `of` are the digests of its input tree and its command. None if there is no compiler to ask for.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn serve(
        &self,
        job: &mut Job,
        of: (Digest, Digest),
        farm: Farm,
        wanted: Wanted<'_>,
    ) -> io::Result<Option<Serving>> {
        let names = match wanted.compilers {
            Compilers::None => BTreeSet::new(),
            Compilers::OfSystem => self.shared.programs.of_system().clone(),
            Compilers::Among(names) => programs::compilers_among(names.iter().cloned()),
        };
        let splits = !names.is_empty();
        if !splits && wanted.tools.is_none() {
            return Ok(None);
        }
        let directory = self.shared.directory_of_a_step(&names)?;
        let beside = wanted.changes.map_or(Beside::Build, Beside::in_root);
        let tools = wanted.tools.map(|(space, read_only)| {
            let shown = self.shared.shown_to_a_step((space, read_only), &farm, directory.path())?;
            Ok::<_, io::Error>(Tools::new(shown, read_only, beside))
        });
        let tools = tools.transpose()?;
        let (has_tools, has_go) = (tools.is_some(), tools.as_ref().is_some_and(|tools| tools.shown.is_some()));
        let listener = listen(directory.path())?;
        let begun = watch::Sender::new(None);
        let room = if splits { farm.room().await.unwrap_or(0) } else { 0 };
        let step = Step::new(self.shared.clone(), job, of, farm, (splits, room, tools));
        let told = begun.subscribe();
        if splits {
            tell_jobs(job, room);
        }
        let (port, listening) = Port::new(tools::PORT);
        job.calls.offer = Some(Offer {
            directory: directory.path().to_owned(),
            to: DIRECTORY.into(),
            programs: Path::new(DIRECTORY).join(PROGRAMS),
            begun,
            port: has_tools.then_some(port),
        });
        let shim = Path::new(DIRECTORY).join(PROGRAMS).join(SHIM).display().to_string();
        if splits {
            // cargo and CMake call compilers through these; a project's own stay.
            for name in [WRAPPER].iter().chain(&LAUNCHERS) {
                job.environment.entry((*name).to_owned()).or_insert_with(|| shim.clone());
            }
        }
        // Go before 1.24 does not know it. A step that says where its cache is may have it among its outputs.
        if has_go && !GO_CACHES.iter().any(|own| job.environment.contains_key(*own)) {
            job.environment.insert(GO_CACHE.to_owned(), format!("{shim} {GOCACHE}"));
        }
        if has_tools {
            tools::add_settings(&mut job.environment);
        }
        let (step, keeping, cancel) = (Arc::new(step), TaskTracker::new(), CancellationToken::new());
        let accepting = accept(listener, step.clone(), told, keeping.clone(), cancel.clone());
        let accepting = AbortOnDropHandle::new(tokio::spawn(accepting));
        let verifying = AbortOnDropHandle::new(tokio::spawn(step.clone().verify(CancellationToken::new())));
        let caching = has_tools.then(|| {
            let caches = Caches::new(step.clone(), self.shared.directory.clone(), keeping.clone());
            AbortOnDropHandle::new(tokio::spawn(http::serve(listening, caches)))
        });
        Ok(Some(Serving { step, keeping, cancel, accepting, verifying, _caching: caching, _directory: directory }))
    }
}

impl Shared {
    /// Go's entries for a step with this directory that has this space.
    fn shown_to_a_step(
        &self,
        (space, read_only): (&str, bool),
        farm: &Farm,
        directory: &Path,
    ) -> io::Result<Option<Shown>> {
        let (space, to) = ([farm.instance.as_str(), space], Path::new(DIRECTORY));
        let show = || self.entries.show((&space, read_only), directory, GO_FILES, to);
        self.has_entries.then(show).transpose()
    }

    /// A directory with the program that a step finds, also under these names of compilers.
    fn directory_of_a_step(&self, names: &BTreeSet<String>) -> io::Result<tempfile::TempDir> {
        let directory = tempfile::Builder::new().prefix("step-").tempdir_in(&self.directory)?;
        // The job is another user.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        self.programs.place(directory.path(), names)?;
        Ok(directory)
    }
}

impl Serving {
    /// What has become of the calls so far, whenever it is asked.
    pub fn counts(&self) -> impl Fn() -> v1::SplitCalls + Send + use<> {
        let step = self.step.clone();
        move || step.tally.calls().to_wire()
    }

    /// Ends, once what its calls made is kept, and answers what became of them.
    pub async fn finish(mut self) -> Calls {
        self.cancel.cancel();
        self.accepting.abort();
        self.keeping.close();
        let kept = async {
            self.keeping.wait().await;
            // Only now all calls have said what they were answered with.
            tokio::join!(self.step.keep_ahead(), goahead::keep(&self.step))
        };
        if tokio::time::timeout(KEEPING, kept).await.is_err() {
            tracing::warn!(waited_s = KEEPING.as_secs(), "the farm takes too long to keep results of calls");
        }
        self.step.verify_the_rest(&mut self.verifying).await;
        if self.step.tools.is_some() {
            let shared = self.step.shared.clone();
            tokio::task::spawn_blocking(move || shared.entries.make_room());
        }
        self.step.calls()
    }
}

/// Tells a job how many compilers it may call at once.
fn tell_jobs(job: &mut Job, room: usize) {
    let places = step::places(job);
    let jobs = (places + room.min(places * MAX_ELSEWHERE)).min(MAX_JOBS.max(places));
    job.environment.entry(JOBS.to_owned()).or_insert_with(|| jobs.to_string());
    if room > 0 {
        for name in TOOLS_JOBS {
            job.environment.entry(name.to_owned()).or_insert_with(|| jobs.to_string());
        }
    }
}

/// The socket in a step's directory.
fn listen(directory: &Path) -> io::Result<UnixListener> {
    let opened = std::fs::File::open(directory)?;
    // The path of a socket may have no more than 107 bytes.
    let short = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(SOCKET);
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(directory.join(SOCKET), std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

async fn accept(
    listener: UnixListener,
    step: Arc<Step>,
    mut begun: watch::Receiver<Option<kiln_executor::calls::Begun>>,
    keeping: TaskTracker,
    cancel: CancellationToken,
) {
    // A step that asks has begun.
    let Ok(begun) = begun.wait_for(Option::is_some).await.map(|begun| begun.clone()) else { return };
    let Some(begun) = begun else { return };
    let mut connections = tokio::task::JoinSet::new();
    // Most steps call no compiler.
    let mut fetching = None;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Such as too many open files: whoever waits is answered when there are fewer.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a compiler call");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if step.splits && fetching.is_none() {
            fetching = Some(AbortOnDropHandle::new(tokio::spawn(step.clone().fetch_ahead())));
        }
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (step, begun, keeping, cancel) = (step.clone(), begun.clone(), keeping.clone(), cancel.child_token());
        connections.spawn(async move {
            // Whatever is wrong with a connection ends it, and the shim becomes the compiler.
            if let Err(error) = answer::converse(stream, &step, &begun, &keeping, cancel).await {
                tracing::debug!(%error, "a shim hung up");
            }
        });
    }
}
