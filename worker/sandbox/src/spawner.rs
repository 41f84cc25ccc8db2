//! Starts inits: a process of this same program that has loaded itself once, and forks for each job.
//!
//! To execute a worker's binary anew means to map, relocate and page in megabytes, which costs more than all namespaces of a job. A fork
//! of a process that has one thread and little memory costs a fraction of that. Invariants: the spawner has one thread and knows nothing
//! of any job, because an init reads its job from its own socket; it ends when the worker does; and a process id stays taken until the
//! worker has released it, so that no other process is ever meant by it.

use std::collections::HashSet;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use kiln_kernel::syscalls;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::init;

/// The name (`argv[0]`) under which this program becomes a spawner.
const NAME: &str = "kiln-sandbox-spawner";
/// Asks for an init; comes with its standard input, output and error output.
const START: u8 = b'S';
/// Says that a process is no longer of interest; its id follows.
const RELEASE: u8 = b'R';
/// Bytes of a message.
const MESSAGE: usize = 5;
/// Descriptors of an init.
const STREAMS: usize = 3;
/// How often released processes that have not ended are looked at, in milliseconds.
const REAP_EVERY: u16 = 50;

/// If this process was started as a spawner, does that work and never returns.
pub(super) fn become_spawner_if_asked() {
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        // Without an error the worker has ended.
        std::process::exit(i32::from(serve().is_err()));
    }
}

fn serve() -> io::Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    syscalls::close_on_exec_from(3)?;
    // What a terminal sends to the worker's group is not for the jobs, which the worker ends in its own time.
    let _ = nix::unistd::setsid();
    let mut released = HashSet::new();
    loop {
        released.retain(|pid| matches!(waitpid(*pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)));
        let timeout = if released.is_empty() { PollTimeout::NONE } else { PollTimeout::from(REAP_EVERY) };
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let Some((message, streams)) = receive(socket.as_fd())? else { return Ok(()) };
        let number = u32::from_le_bytes([message[1], message[2], message[3], message[4]]);
        match message[0] {
            START => start(socket.as_fd(), streams)?,
            RELEASE => drop(released.insert(Pid::from_raw(number as i32))),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Forks an init and answers with its process id, or with 0 and the error's number.
fn start(socket: BorrowedFd<'_>, streams: Vec<OwnedFd>) -> io::Result<()> {
    let answer = |message: [u8; MESSAGE], descriptors: &[BorrowedFd<'_>]| send(socket, message, descriptors);
    let refused = |error: io::Error| answer(message(0, error.raw_os_error().unwrap_or(0) as u32), &[]);
    let child = match syscalls::fork_alone() {
        Ok(None) => {
            // A copy of the spawner's own end would hide from the worker that the spawner has ended.
            let _ = nix::unistd::close(socket.as_raw_fd());
            init::run_to_the_end(adopt(streams))
        }
        Ok(Some(child)) => child,
        Err(error) => return refused(error),
    };
    let pid = rustix::process::Pid::from_raw(child.as_raw());
    match pid.map_or(Err(rustix::io::Errno::SRCH), |pid| pidfd_open(pid, PidfdFlags::empty())) {
        Ok(descriptor) => answer(message(1, child.as_raw() as u32), &[descriptor.as_fd()]),
        Err(error) => refused(error.into()),
    }
}

/// Makes these descriptors the standard ones.
fn adopt(streams: Vec<OwnedFd>) -> io::Result<()> {
    let [input, output, error] = <[OwnedFd; STREAMS]>::try_from(streams).map_err(|_| io::ErrorKind::InvalidData)?;
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    Ok(rustix::stdio::dup2_stderr(error)?)
}

fn message(kind: u8, number: u32) -> [u8; MESSAGE] {
    let [a, b, c, d] = number.to_le_bytes();
    [kind, a, b, c, d]
}

fn send(socket: BorrowedFd<'_>, message: [u8; MESSAGE], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &control[..0] } else { &control[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The next message; none if the other side has ended.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<([u8; MESSAGE], Vec<OwnedFd>)>> {
    let mut message = [0; MESSAGE];
    let mut pieces = [IoSliceMut::new(&mut message)];
    let mut space = nix::cmsg_space!([RawFd; STREAMS]);
    let received = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    let mut descriptors = Vec::new();
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            descriptors.extend(raw.into_iter().map(syscalls::own));
        }
    }
    match received.bytes {
        0 => Ok(None),
        MESSAGE => Ok(Some((message, descriptors))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The worker's side of a spawner, which is started when it is first needed, and again if it ended.
#[derive(Debug)]
pub(super) struct Spawner {
    program: PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    socket: OwnedFd,
    process: std::process::Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It would end by itself once the socket is closed; nothing waits for it then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An init that was started. It is killed on drop.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) pid: u32,
    pub(super) stdout: Option<pipe::Receiver>,
    pub(super) stderr: Option<pipe::Receiver>,
    process: AsyncFd<OwnedFd>,
    spawner: Arc<Spawner>,
}

impl Init {
    /// Completes when it has ended.
    pub(super) async fn wait(&self) {
        // A process's descriptor becomes readable when it ends (pidfd_open(2)).
        let _ = self.process.readable().await;
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(self.process.get_ref(), Signal::KILL);
        self.spawner.release(self.pid);
    }
}

impl Spawner {
    /// A spawner of this program, which must call [`become_init_if_asked`](super::become_init_if_asked).
    pub(super) fn new(program: PathBuf) -> Arc<Self> {
        Arc::new(Self { program, running: Mutex::new(None) })
    }

    /// Starts an init, and returns the socket over which it talks to the worker.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<(Init, UnixStream)> {
        // An init of a spawner that was killed at this moment ends with the socket that it has.
        self.attempt().or_else(|_| self.attempt())
    }

    fn attempt(self: &Arc<Self>) -> io::Result<(Init, UnixStream)> {
        let (own, theirs) = UnixStream::pair()?;
        let (stdout, their_stdout) = io::pipe()?;
        let (stderr, their_stderr) = io::pipe()?;
        let streams = [theirs.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()];
        let (pid, process) = {
            let mut running = self.running.lock();
            let spawner = match running.take() {
                Some(spawner) => spawner,
                None => Running::new(&self.program)?,
            };
            let started = spawner.start(&streams)?;
            *running = Some(spawner);
            started
        };
        let init = Init {
            pid,
            stdout: Some(pipe::Receiver::from_owned_fd(stdout.into())?),
            stderr: Some(pipe::Receiver::from_owned_fd(stderr.into())?),
            process: syscalls::watched(process, Interest::READABLE)?,
            spawner: self.clone(),
        };
        Ok((init, own))
    }

    fn release(&self, pid: u32) {
        if let Some(running) = &*self.running.lock() {
            // Where it has ended, its children are no longer its.
            let _ = send(running.socket.as_fd(), message(RELEASE, pid), &[]);
        }
    }
}

impl Running {
    fn new(program: &PathBuf) -> io::Result<Self> {
        let (own, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let process = Command::new(program)
            .arg0(NAME)
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket: own, process })
    }

    fn start(&self, streams: &[BorrowedFd<'_>]) -> io::Result<(u32, OwnedFd)> {
        send(self.socket.as_fd(), message(START, 0), streams)?;
        let Some((message, descriptors)) = receive(self.socket.as_fd())? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let number = u32::from_le_bytes([message[1], message[2], message[3], message[4]]);
        match (message[0], descriptors.into_iter().next()) {
            (1, Some(process)) => Ok((number, process)),
            _ => Err(io::Error::from_raw_os_error(number as i32)),
        }
    }
}
