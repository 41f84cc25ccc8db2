//! Runs one job in a container.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::container::{Container, Failed};
use super::images::{For, Image};
use super::mounts::{Mounts, Placed};
use super::request::{Kind, Place};
use super::wire::{Report, Task};
use super::{Docker, Shared};
use kiln_executor::disk::Disk;
use kiln_executor::ending::{self, Ended, Stop, after};
use kiln_executor::output::follow;
use kiln_executor::samples::Samples;
use kiln_executor::scratch::Scratch;
use kiln_executor::{self as executor, Chunk, Conditions, Error, Executor, Finished, Job, OutputTree, Stream, cpus};
use kiln_kernel::userns;

/// The engine's name for the machine's own network, where sockets are shared with the machine.
const HOST_NETWORK: &str = "host";
/// How long a stopped task may take to end before its container is killed.
const STOPPING: Duration = Duration::from_secs(10);

#[async_trait::async_trait]
impl Executor for Docker {
    async fn run(&self, job: Job, output: mpsc::Sender<Chunk>, cancel: CancellationToken) -> Result<Finished, Error> {
        let seated = tokio::select! {
            seated = take_container(&self.shared, &job, &output) => seated?,
            () = cancel.cancelled() => return Err(Error::Cancelled),
        };
        attend(seated, &job, output, cancel).await
    }
}

/// A job in its container, with its command running.
struct Seated {
    left: Left,
    output: [pipe::Receiver; 2],
}

/// Dropped when the outputs have been collected: first the mounts, then the directories below them. A clean container
/// goes back to the pool.
#[derive(Debug)]
struct Left {
    placed: Option<Placed>,
    scratch: Scratch,
    container: Option<Container>,
    clean: bool,
    shared: Arc<Shared>,
}

impl Left {
    fn root(&self) -> PathBuf {
        match self.container.as_ref().map(|container| &container.place) {
            Some(Place::Slot(slot)) => slot.build(),
            Some(Place::Directories { build, .. }) => build.clone(),
            None => self.scratch.path().join("build"),
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.placed.take();
        if let Some(container) = self.container.take().filter(|_| self.clean) {
            self.shared.pool.give(container);
        }
    }
}

fn fault(what: &str) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |error| Error::Worker(format!("{what}: {error}"))
}

/// Finds or creates a container, gives it the inputs and starts the command.
async fn take_container(shared: &Arc<Shared>, job: &Job, output: &mpsc::Sender<Chunk>) -> Result<Seated, Error> {
    let executor::Place::Image(name, architecture) = &job.place else {
        return Err(Error::Worker("the Docker executor got a job without an image".to_owned()));
    };
    let architecture = architecture.unwrap_or(&shared.setting.engine.architecture);
    loop {
        let image = shared.images.ensure(name, architecture, For::job(job), output).await?;
        match shared.mounts().filter(|_| image.is_closed) {
            None => return alone(shared, job, &image).await,
            Some(mounts) => {
                if let Some(seated) = among_others(shared, mounts, job, &image).await? {
                    return Ok(seated);
                }
            }
        }
    }
}

fn kind(job: &Job, image: &Image) -> Kind {
    Kind {
        tenant: job.tenant.clone(),
        image: image.id.clone(),
        network: job.network,
        milli_cpus: job.milli_cpus,
        memory_bytes: job.memory_bytes,
        max_processes: job.max_processes,
        host_name: job.host_name().to_owned(),
    }
}

/// Creates a container in a separate task: if nobody waits for it any more, it is removed when it is ready.
async fn started(shared: &Arc<Shared>, job: &Job, image: &Image, place: Place) -> Result<Container, Error> {
    let (making, kind) = (shared.clone(), kind(job, image));
    let made = tokio::spawn(async move { Container::start(&making.setting, &making.name(), kind, place).await }).await;
    made.map_err(|error| Error::Worker(error.to_string()))?.map_err(|failed| match failed {
        Failed::NoImage => {
            shared.images.forget();
            Error::Worker(format!("the image {} was removed from the worker's engine", image.id))
        }
        Failed::Other(words) => Error::Worker(words),
    })
}

/// Runs it in a pooled container. `None`: try again in another way.
async fn among_others(
    shared: &Arc<Shared>,
    mounts: &Mounts,
    job: &Job,
    image: &Image,
) -> Result<Option<Seated>, Error> {
    let scratch = Scratch::new(&shared.jobs).map_err(fault("cannot prepare a job"))?;
    let (container, is_warm) = match shared.pool.take(&kind(job, image)) {
        Some(container) => (container, true),
        None => {
            let slot = mounts.slot(&shared.name()).map_err(fault("cannot prepare a container"))?;
            (started(shared, job, image, Place::Slot(slot)).await?, false)
        }
    };
    let Place::Slot(slot) = &container.place else { return Ok(None) };
    let placed = tokio::task::block_in_place(|| mounts.place(slot, &job.layers, &scratch)).map_err(Error::Worker)?;
    let mut left =
        Left { placed: Some(placed), scratch, container: Some(container), clean: false, shared: shared.clone() };
    if !is_warm && !arrives(&left) {
        tracing::warn!("this worker's mounts do not reach containers; every action gets its own container");
        shared.mounts_arrive.store(false, Ordering::Relaxed);
        return Ok(None);
    }
    match begin(&mut left, job).await {
        Ok(output) => Ok(Some(Seated { left, output })),
        // The idle container may have been removed meanwhile.
        Err(_) if is_warm => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the container sees the mounts, and not the empty directories below them.
fn arrives(left: &Left) -> bool {
    let Some(pid) = left.container.as_ref().and_then(Container::pid) else { return false };
    let identity = |path: &Path| path.metadata().map(|data| (data.dev(), data.ino())).ok();
    let theirs = identity(Path::new(&format!("/proc/{pid}/root{}", executor::BUILD)));
    theirs.is_some() && theirs == identity(&left.root())
}

/// Runs it in its own container, with a copy of the inputs.
async fn alone(shared: &Arc<Shared>, job: &Job, image: &Image) -> Result<Seated, Error> {
    let scratch = Scratch::new(&shared.jobs).map_err(fault("cannot prepare a job"))?;
    let (layers, (user, group), directory) = (job.layers.clone(), shared.setting.user, scratch.path().to_owned());
    let (build, tmp) = (directory.join("build"), directory.join("tmp"));
    let copied = tokio::task::spawn_blocking(move || copy_in(&layers, &directory, user, group)).await;
    copied.map_err(|error| Error::Worker(error.to_string()))?.map_err(fault("cannot copy the inputs"))?;
    let container = started(shared, job, image, Place::Directories { build, tmp }).await?;
    let mut left = Left { placed: None, scratch, container: Some(container), clean: false, shared: shared.clone() };
    let output = begin(&mut left, job).await?;
    Ok(Seated { left, output })
}

fn copy_in(layers: &[PathBuf], directory: &Path, user: u32, group: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let (build, tmp) = (directory.join("build"), directory.join("tmp"));
    std::fs::create_dir_all(&build)?;
    std::fs::create_dir_all(tmp.join("home"))?;
    std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o1777))?;
    layers.iter().rev().try_for_each(|layer| executor::layers::copy(layer, &build))?;
    if userns::is_machine_root() {
        give(&build, user, group)?;
        give(&tmp, user, group)?;
    }
    Ok(())
}

fn give(path: &Path, user: u32, group: u32) -> std::io::Result<()> {
    lchown(path, Some(user), Some(group))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), user, group)?;
        }
    }
    Ok(())
}

/// Starts the command; its output arrives through the pipes.
async fn begin(left: &mut Left, job: &Job) -> Result<[pipe::Receiver; 2], Error> {
    let user = left.shared.setting.user;
    let Some(container) = &mut left.container else { return Err(Error::Worker("no container".to_owned())) };
    let task = Task {
        arguments: job.arguments.clone(),
        environment: job.environment.clone(),
        secrets: job.secrets.clone(),
        working_directory: job.working_directory.clone(),
        make_directories: job.make_directories.clone(),
        cpus: job.conditions.cpus,
        private_network: !job.network || left.shared.setting.network != HOST_NETWORK,
    };
    let (stdout_end, stdout) = output_pipe(user).map_err(fault("cannot create a pipe"))?;
    let (stderr_end, stderr) = output_pipe(user).map_err(fault("cannot create a pipe"))?;
    container
        .begin(&task, [stdout_end.as_fd(), stderr_end.as_fd()])
        .await
        .map_err(fault("cannot talk to a container"))?;
    match container.report().await.map_err(fault("no answer from a container"))? {
        Report::Started => Ok([stdout, stderr]),
        Report::Setup(reason) => Err(Error::Worker(format!("cannot start a command in a container: {reason}"))),
        other => Err(Error::Worker(format!("a container's init sent {other:?}, expected `Started`"))),
    }
}

/// The writing end belongs to the task's user, because commands may open `/dev/stdout` again.
fn output_pipe((user, group): (u32, u32)) -> std::io::Result<(OwnedFd, pipe::Receiver)> {
    let (sender, receiver) = pipe::pipe()?;
    let end = sender.into_blocking_fd()?;
    if userns::is_machine_root() {
        let owner = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
        rustix::fs::fchown(&end, Some(owner.0), Some(owner.1))?;
    }
    Ok((end, receiver))
}

/// Follows the command until it ends, or stops it.
async fn attend(
    seated: Seated,
    job: &Job,
    output: mpsc::Sender<Chunk>,
    cancel: CancellationToken,
) -> Result<Finished, Error> {
    let Seated { mut left, output: [stdout, stderr] } = seated;
    let began = Instant::now();
    let Some(mut container) = left.container.take() else {
        return Err(Error::Worker("no container".to_owned()));
    };
    let disk = Disk::watch(left.scratch.path(), job.disk_bytes);
    let ending = async {
        let stop = tokio::select! {
            report = ended(&mut container, job) => return (report, None),
            () = after(job.timeout) => Stop::Timeout,
            () = cancel.cancelled() => Stop::Cancel,
            stop = disk.used_up() => stop,
        };
        let _ = container.stop().await;
        let report = match tokio::time::timeout(STOPPING, ended(&mut container, job)).await {
            Ok(report) => report,
            Err(_) => {
                container.end().await;
                Err(std::io::Error::other("it did not stop"))
            }
        };
        (report, Some(stop))
    };
    let followed = (follow(Some(stdout), Stream::Stdout, output.clone()), follow(Some(stderr), Stream::Stderr, output));
    // What is still in the pipes is read after the last process has gone.
    let ((report, stop), (), ()) = tokio::join!(ending, followed.0, followed.1);
    let wall = began.elapsed();
    let (ended, clean, samples) = match (report, stop) {
        (Ok(Report::Ended { ended, clean, samples }), _) => (ended, clean, samples),
        (Ok(other), _) => {
            return Err(Error::Worker(format!("a container's init sent {other:?}, expected `Ended`")));
        }
        (Err(_), Some(_)) => {
            (Ended { wall_us: wall.as_micros() as u64, ..Ended::default() }, false, Samples::default())
        }
        (Err(_), None) => match container.post_mortem().await {
            (true, _) => {
                let wall_us = wall.as_micros() as u64;
                (Ended { out_of_memory: true, wall_us, ..Ended::default() }, false, Samples::default())
            }
            (false, why) => {
                let words = format!("the container ended under the command ({why}); did the Docker Engine stop?");
                return Err(Error::Worker(words));
            }
        },
    };
    let failed = ended.code != Some(0);
    let stop = stop.or_else(|| if failed { disk.explains_failure() } else { None });
    left.container = Some(container);
    // No other job has a name of the machine that was made up for this one.
    left.clean = clean && left.placed.is_some() && job.conditions.host_name.is_none();
    let conditions =
        Conditions { cpus: Some(cpus::of(job)), host_name: Some(job.host_name().to_owned()), directory: None };
    Ok(Finished { samples, conditions, ..finished(left, &ended, stop) })
}

/// The report that follows those of what the command uses.
async fn ended(container: &mut Container, job: &Job) -> std::io::Result<Report> {
    loop {
        match container.report().await? {
            Report::Used(elapsed, cpu_us, memory_bytes) => {
                if let Some(so_far) = &job.usage {
                    so_far.saw((elapsed, cpu_us, memory_bytes));
                }
            }
            other => return Ok(other),
        }
    }
}

fn finished(left: Left, ended: &Ended, stop: Option<Stop>) -> Finished {
    Finished {
        exit: ending::exit(ended, stop),
        wall: Duration::from_micros(ended.wall_us),
        user_cpu: Duration::from_micros(ended.user_us),
        system_cpu: Duration::from_micros(ended.system_us),
        peak_memory_bytes: ended.peak_bytes,
        samples: Samples::default(),
        accesses: None,
        conditions: Default::default(),
        tree: OutputTree::new(left.root(), left),
    }
}
