//! One container with the init in it: made, started, spoken with, removed.
//!
//! Invariant: it has no privileges, no capabilities, no network that was not asked for, and a root that nobody can write. It is
//! removed when this is dropped.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, LogsOptionsBuilder};
use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};

use super::engine::{Engine, STATE_LABEL, WORKER_LABEL, is_status, words};
use super::files::Files;
use super::init::{DOOR, FILES, SOCKET};
use super::mounts::Slot;
use super::wire::{self, Report, Task};
use crate::executor::BUILD;

/// How long a container that was started may take to come to the door.
const ARRIVAL: Duration = Duration::from_secs(30);
/// How often it is looked after meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Processes that the init may need beside the task's own: its threads.
const OWN_PROCESSES: i64 = 8;
/// Memory that the init may need beside the task's own.
const OWN_BYTES: u64 = 16 << 20;

/// What a container is made for: only tasks that ask for the same may share one, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) tenant: String,
    pub(super) image: String,
    pub(super) network: bool,
    pub(super) milli_cpus: u32,
    pub(super) memory_bytes: u64,
    pub(super) max_processes: u32,
}

/// What all containers of a worker have in common.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) engine: Engine,
    pub(super) files: Files,
    /// Where the doors are.
    pub(super) doors: PathBuf,
    pub(super) worker: String,
    /// Id of the state directory.
    pub(super) state: String,
    /// The engine's network for tasks that ask for one.
    pub(super) network: String,
    /// User and group of tasks.
    pub(super) user: (u32, u32),
}

/// A container that could not be made or spoken with.
#[derive(Debug)]
pub(super) enum Failed {
    /// Its image is no longer there.
    NoImage,
    /// In words.
    Other(String),
}

/// The directories of the host that become the inputs and `/tmp` of a container.
#[derive(Debug)]
pub(super) enum Place {
    /// A slot, where each task has its own mounts.
    Slot(Slot),
    /// For one task.
    Directories { build: PathBuf, tmp: PathBuf },
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    engine: Engine,
    id: String,
    pub(super) kind: Kind,
    pub(super) place: Place,
    socket: BufReader<UnixStream>,
    _door: Door,
}

/// The directory in which a container finds the worker's socket; gone when this is dropped.
#[derive(Debug)]
struct Door {
    directory: PathBuf,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Removes a container that is on its way, where that breaks off.
struct Unfinished<'a> {
    engine: &'a Engine,
    id: Option<String>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            remove_later(self.engine.clone(), id);
        }
    }
}

fn remove_later(engine: Engine, id: String) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move { engine.remove(&id).await });
    }
}

impl Container {
    /// Makes and starts one, and waits until its init is ready.
    pub(super) async fn start(setting: &Setting, name: &str, kind: Kind, place: Place) -> Result<Self, Failed> {
        let engine = &setting.engine;
        let other = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| Failed::Other(format!("{what}: {error}"))
        };
        let door = Door { directory: setting.doors.join(name) };
        let listener = open_door(&door, setting.user).map_err(other("cannot make a socket for a container"))?;
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let body = body(setting, &kind, &place, &door.directory);
        let created = engine.api.create_container(Some(options), body).await.map_err(|error| {
            if is_status(&error, 404) {
                return Failed::NoImage;
            }
            Failed::Other(format!("cannot make a container: {}", words(&error)))
        })?;
        let mut unfinished = Unfinished { engine, id: Some(created.id.clone()) };
        let started = engine.api.start_container(&created.id, None).await;
        started.map_err(|error| Failed::Other(format!("cannot start a container: {}", words(&error))))?;
        let socket = arrival(engine, &created.id, listener).await.map_err(Failed::Other)?;
        // Nobody else comes in by this door.
        std::fs::remove_file(door.directory.join(SOCKET)).map_err(other("cannot close a container's door"))?;
        let socket = BufReader::new(socket);
        unfinished.id = None;
        let mut container = Self { engine: engine.clone(), id: created.id, kind, place, socket, _door: door };
        match container.report().await {
            Ok(Report::Ready) => Ok(container),
            Ok(report) => Err(Failed::Other(format!("a container's init said {report:?} and not that it is ready"))),
            Err(error) => Err(Failed::Other(format!("a container's init fails: {error}"))),
        }
    }

    /// The init's number among the processes of this machine.
    pub(super) fn pid(&self) -> Option<i32> {
        self.socket.get_ref().peer_cred().ok()?.pid()
    }

    /// Whether its init still listens.
    pub(super) fn lives(&self) -> bool {
        let mut byte = [0];
        // Nothing is unread between tasks: there is either nothing to read, or the end.
        self.socket.buffer().is_empty()
            && matches!(self.socket.get_ref().try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Hands a task over.
    pub(super) async fn begin(&mut self, task: &Task, output: [std::os::fd::BorrowedFd<'_>; 2]) -> io::Result<()> {
        let data = wire::encode(task)?;
        let socket = self.socket.get_mut();
        socket.async_io(Interest::WRITABLE, || wire::send_tag(socket.as_fd(), output)).await?;
        socket.write_all(&data).await
    }

    /// Asks for the end of all that the task started.
    pub(super) async fn stop(&mut self) -> io::Result<()> {
        self.socket.get_mut().write_all(&[wire::STOP]).await
    }

    /// What the init says next.
    pub(super) async fn report(&mut self) -> io::Result<Report> {
        let mut line = String::new();
        if self.socket.read_line(&mut line).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the container ended"));
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    /// Ends it now, whatever it does.
    pub(super) async fn end(&self) {
        self.engine.remove(&self.id).await;
    }

    /// Why it ended by itself, and whether that was for want of memory.
    pub(super) async fn post_mortem(&self) -> (bool, String) {
        let state = match self.engine.api.inspect_container(&self.id, None).await {
            Ok(found) => found.state.unwrap_or_default(),
            Err(error) => return (false, words(&error)),
        };
        let code = state.exit_code.unwrap_or(0);
        (state.oom_killed == Some(true), format!("its init ended with code {code}"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        remove_later(self.engine.clone(), std::mem::take(&mut self.id));
    }
}

fn open_door(door: &Door, (user, group): (u32, u32)) -> io::Result<UnixListener> {
    use std::os::unix::fs::{PermissionsExt, chown};
    std::fs::create_dir_all(&door.directory)?;
    let path = door.directory.join(SOCKET);
    let listener = UnixListener::bind(&path)?;
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(user), Some(group))?;
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    std::fs::set_permissions(&door.directory, std::fs::Permissions::from_mode(0o755))?;
    Ok(listener)
}

/// Waits for the init at the door, and meanwhile sees whether it still runs.
async fn arrival(engine: &Engine, id: &str, listener: UnixListener) -> Result<UnixStream, String> {
    let deadline = tokio::time::Instant::now() + ARRIVAL;
    loop {
        match tokio::time::timeout(LOOK_EVERY, listener.accept()).await {
            Ok(Ok((socket, _))) => return Ok(socket),
            Ok(Err(error)) => return Err(format!("cannot wait for a container: {error}")),
            Err(_) => {}
        }
        let state =
            engine.api.inspect_container(id, None).await.map_err(|error| words(&error))?.state.unwrap_or_default();
        if state.running != Some(true) {
            let code = state.exit_code.unwrap_or(0);
            return Err(format!("a container ended before it was ready, with code {code}: {}", said(engine, id).await));
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!("a container was not ready after {} s: {}", ARRIVAL.as_secs(), said(engine, id).await));
        }
    }
}

/// The last words of a container.
async fn said(engine: &Engine, id: &str) -> String {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("5").build();
    let lines: Vec<String> = engine
        .api
        .logs(id, Some(options))
        .filter_map(|line| async { line.ok().map(|line| line.to_string()) })
        .collect()
        .await;
    let text = lines.concat();
    if text.trim().is_empty() { "it said nothing".to_owned() } else { text.trim().to_owned() }
}

fn bind(from: &Path, to: &str, read_only: bool, propagation: Option<MountBindOptionsPropagationEnum>) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(from.display().to_string()),
        target: Some(to.to_owned()),
        read_only: Some(read_only),
        bind_options: propagation
            .map(|propagation| MountBindOptions { propagation: Some(propagation), ..Default::default() }),
        ..Default::default()
    }
}

fn body(setting: &Setting, kind: &Kind, place: &Place, door: &Path) -> ContainerCreateBody {
    let follow = matches!(place, Place::Slot(_)).then_some(MountBindOptionsPropagationEnum::RSLAVE);
    let (build, tmp) = match place {
        Place::Slot(slot) => (slot.build(), slot.tmp()),
        Place::Directories { build, tmp } => (build.clone(), tmp.clone()),
    };
    let (user, group) = setting.user;
    let memory = i64::try_from(kind.memory_bytes.saturating_add(OWN_BYTES)).unwrap_or(i64::MAX);
    let host_config = HostConfig {
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(true),
        network_mode: Some(if kind.network { setting.network.clone() } else { "none".to_owned() }),
        ipc_mode: Some("private".to_owned()),
        memory: Some(memory),
        // No swap beside it.
        memory_swap: Some(memory),
        shm_size: Some(memory),
        cpu_shares: Some((i64::from(kind.milli_cpus) * 1024 / 1000).max(2)),
        pids_limit: Some(i64::from(kind.max_processes) + OWN_PROCESSES),
        mounts: Some(vec![
            bind(&setting.files.directory, FILES, true, None),
            bind(door, DOOR, true, None),
            bind(&build, BUILD, false, follow),
            bind(&tmp, "/tmp", false, follow),
        ]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".to_owned(), "64k".to_owned())])),
        }),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(kind.image.clone()),
        entrypoint: Some(setting.files.command.clone()),
        cmd: Some(Vec::new()),
        user: Some(format!("{user}:{group}")),
        working_dir: Some("/".to_owned()),
        hostname: Some("kiln".to_owned()),
        // An engine that stops need not wait: nothing in here can end in order.
        stop_signal: Some("SIGKILL".to_owned()),
        labels: Some(HashMap::from([
            (WORKER_LABEL.to_owned(), setting.worker.clone()),
            (STATE_LABEL.to_owned(), setting.state.clone()),
        ])),
        // An image's own health check would run beside the tasks.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        host_config: Some(host_config),
        ..Default::default()
    }
}
