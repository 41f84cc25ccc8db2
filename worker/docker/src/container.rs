//! One container that runs the init: creates it, starts it, talks to it and removes it.
//!
//! Invariant: the container is removed on drop.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use bollard::query_parameters::{CreateContainerOptionsBuilder, LogsOptionsBuilder};
use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};

use super::engine::{Engine, is_status, words};
use super::init::SOCKET;
use super::request::{Kind, Place, Setting, body};
use super::wire::{self, Report, Task};
use kiln_kernel::userns;

/// Limit for a started container's init to connect.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to check meanwhile that the container still runs.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why a container could not be created or reached.
#[derive(Debug)]
pub(super) enum Failed {
    /// Its image no longer exists.
    NoImage,
    /// Any other reason.
    Other(String),
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    engine: Engine,
    id: String,
    pub(super) kind: Kind,
    pub(super) place: Place,
    socket: BufReader<UnixStream>,
    _door: SocketDir,
}

/// The directory in which a container finds the worker's socket; removed on drop.
#[derive(Debug)]
struct SocketDir {
    directory: PathBuf,
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Removes a container whose start was interrupted.
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
    /// Creates and starts a container, and waits until its init is ready.
    pub(super) async fn start(setting: &Setting, name: &str, kind: Kind, place: Place) -> Result<Self, Failed> {
        let engine = &setting.engine;
        let other = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| Failed::Other(format!("{what}: {error}"))
        };
        let door = SocketDir { directory: setting.doors.join(name) };
        let listener = open_door(&door, setting.user).map_err(other("cannot create a socket for a container"))?;
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let body = body(setting, &kind, &place, &door.directory);
        let created = engine.api.create_container(Some(options), body).await.map_err(|error| {
            if is_status(&error, 404) {
                return Failed::NoImage;
            }
            Failed::Other(format!("cannot create a container: {}", words(&error)))
        })?;
        let mut unfinished = Unfinished { engine, id: Some(created.id.clone()) };
        let started = engine.api.start_container(&created.id, None).await;
        started.map_err(|error| Failed::Other(format!("cannot start a container: {}", words(&error))))?;
        let socket = arrival(engine, &created.id, listener).await.map_err(Failed::Other)?;
        // Nothing else can connect to this socket.
        std::fs::remove_file(door.directory.join(SOCKET)).map_err(other("cannot remove a container's socket"))?;
        let socket = BufReader::new(socket);
        unfinished.id = None;
        let mut container = Self { engine: engine.clone(), id: created.id, kind, place, socket, _door: door };
        match container.report().await {
            Ok(Report::Ready) => Ok(container),
            Ok(report) => Err(Failed::Other(format!("a container's init sent {report:?}, expected `Ready`"))),
            Err(error) => Err(Failed::Other(format!("a container's init failed: {error}"))),
        }
    }

    /// The init's process id on this machine.
    pub(super) fn pid(&self) -> Option<i32> {
        self.socket.get_ref().peer_cred().ok()?.pid()
    }

    /// Whether its init is still connected.
    pub(super) fn is_running(&self) -> bool {
        let mut byte = [0];
        // Between tasks the init sends nothing, so anything readable is the end of the stream.
        self.socket.buffer().is_empty()
            && matches!(self.socket.get_ref().try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a task to the init.
    pub(super) async fn begin(&mut self, task: &Task, output: [std::os::fd::BorrowedFd<'_>; 2]) -> io::Result<()> {
        let data = wire::encode(task)?;
        let socket = self.socket.get_mut();
        socket.async_io(Interest::WRITABLE, || wire::send_tag(socket.as_fd(), output)).await?;
        socket.write_all(&data).await
    }

    /// Asks the init to stop everything that the task started.
    pub(super) async fn stop(&mut self) -> io::Result<()> {
        self.socket.get_mut().write_all(&[wire::STOP]).await
    }

    /// The init's next report.
    pub(super) async fn report(&mut self) -> io::Result<Report> {
        let mut line = String::new();
        if self.socket.read_line(&mut line).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the container ended"));
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    /// Kills the container, whatever it is doing.
    pub(super) async fn end(&self) {
        self.engine.remove(&self.id).await;
    }

    /// Whether the init ran out of memory, and how it exited.
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

fn open_door(door: &SocketDir, (user, group): (u32, u32)) -> io::Result<UnixListener> {
    use std::os::unix::fs::{PermissionsExt, chown};
    std::fs::create_dir_all(&door.directory)?;
    let path = door.directory.join(SOCKET);
    let listener = UnixListener::bind(&path)?;
    if userns::is_machine_root() {
        chown(&path, Some(user), Some(group))?;
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    std::fs::set_permissions(&door.directory, std::fs::Permissions::from_mode(0o755))?;
    Ok(listener)
}

/// Waits for the init to connect, and checks meanwhile that the container still runs.
async fn arrival(engine: &Engine, id: &str, listener: UnixListener) -> Result<UnixStream, String> {
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
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
            return Err(format!(
                "a container ended before it was ready, with code {code}: {}",
                logs_of(engine, id).await
            ));
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!(
                "a container was not ready after {} s: {}",
                START_TIMEOUT.as_secs(),
                logs_of(engine, id).await
            ));
        }
    }
}

/// The last lines of a container's log.
async fn logs_of(engine: &Engine, id: &str) -> String {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("5").build();
    let lines: Vec<String> = engine
        .api
        .logs(id, Some(options))
        .filter_map(|line| async { line.ok().map(|line| line.to_string()) })
        .collect()
        .await;
    let text = lines.concat();
    if text.trim().is_empty() { "it printed nothing".to_owned() } else { text.trim().to_owned() }
}
