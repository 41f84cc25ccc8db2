//! Runs a session in a job's place: first the job's own command, if that is wanted, then what somebody watches.
//!
//! Invariants: nothing that the first command started is left when the session begins; its terminal was made before the first command could
//! tamper with anything; only the session's own command has the terminal.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kiln_executor::ending::Ended;
use kiln_executor::program;
use kiln_executor::session::{Terminal, Wanted};
use kiln_kernel::syscalls;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{InputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use super::super::rooted;
use super::super::spec::{self, Report, Spec};
use super::reap::{ended, reap};
use super::watch::{Stopped, expendable};
use super::{Streams, report, silence, start};

/// Shells, the first of which is there.
const SHELLS: [&str; 2] = ["bash", "sh"];
/// How long the last output of the first command may take to be read.
const READING: Duration = Duration::from_secs(10);

/// What a command is started with.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Start<'a> {
    arguments: &'a [String],
    /// Its standard input, and the value of TERM if that is a terminal, which it leads.
    input: Option<(&'a OwnedFd, Option<&'a str>)>,
}

impl<'a> Start<'a> {
    /// A job's own command.
    pub(super) fn of_job(spec: &'a Spec) -> Self {
        Self { arguments: &spec.arguments, input: None }
    }

    /// The program's file, and what it is called.
    pub(in super::super) fn program(
        &self,
        directory: &std::path::Path,
        path: &str,
        place: &str,
    ) -> Result<Command, (i32, String)> {
        use std::os::unix::process::CommandExt;
        let (file, name) = match self.arguments.first() {
            Some(name) => (program::resolve(name, directory, path, place)?, name.as_str()),
            None => SHELLS
                .iter()
                .find_map(|shell| Some((program::resolve(shell, directory, path, place).ok()?, *shell)))
                .ok_or_else(|| (127, format!("there is no shell {place}; `kiln run` runs what there is")))?,
        };
        let mut command = Command::new(file);
        command.arg0(name).args(self.arguments.iter().skip(1)).current_dir(directory).stdin(Stdio::null());
        Ok(command)
    }

    /// Gives a command its streams, and the variables that come with them.
    pub(in super::super) fn connect(&self, command: &mut Command) -> io::Result<()> {
        let Some((input, term)) = self.input else { return Ok(()) };
        command.stdin(input.try_clone()?);
        if let Some(term) = term {
            command.stdout(input.try_clone()?).stderr(input.try_clone()?);
            command.env("TERM", term);
            syscalls::lead_session(command);
        }
        Ok(())
    }
}

/// Where a session's input comes from.
#[derive(Debug)]
pub(super) struct Input {
    /// The job's side of a terminal, or of a pipe.
    own: OwnedFd,
    /// The socket to the worker.
    socket: UnixStream,
}

impl Input {
    /// Makes the terminal, or a pipe, and sends its other side to the worker.
    pub(super) fn open(wanted: &Wanted, socket: OwnedFd, owner: Option<u32>) -> io::Result<Self> {
        let (other, own) = match &wanted.terminal {
            Some(terminal) => pair(terminal)?,
            None => {
                let (own, other) = io::pipe()?;
                (other.into(), own.into())
            }
        };
        if let (Some(owner), Some(_)) = (owner, &wanted.terminal) {
            rustix::fs::fchown(&own, Some(rustix::process::Uid::from_raw(owner)), None)?;
        }
        let socket = UnixStream::from(socket);
        spec::send(&socket, &[other.as_fd()])?;
        Ok(Self { own, socket })
    }

    /// Waits until the worker is ready for the session; `false` if nobody is.
    fn may_begin(&mut self) -> bool {
        report(&Report::Opened);
        self.socket.read_exact(&mut [0]).is_ok()
    }
}

/// A terminal of the job's own `devpts`: the worker's side, and the job's.
fn pair(terminal: &Terminal) -> io::Result<(OwnedFd, OwnedFd)> {
    let other = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&other)?;
    unlockpt(&other)?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let own = rustix::fs::open(ptsname_r(&other)?, flags, rustix::fs::Mode::empty())?;
    let mut modes = tcgetattr(&own)?;
    modes.input_flags |= InputFlags::IUTF8;
    tcsetattr(&own, SetArg::TCSANOW, &modes)?;
    syscalls::set_window_size(own.as_fd(), terminal.rows, terminal.columns)?;
    let other = other.as_fd().try_clone_to_owned()?;
    Ok((other, own))
}

/// Runs a session to its end.
pub(super) fn run(
    (spec, wanted): (&Spec, &Wanted),
    place: Option<&rooted::Built>,
    mut input: Input,
    (null, oom_score): (&File, Option<File>),
    asked: &AtomicBool,
    stopped: &Stopped,
) -> io::Result<Ended> {
    let score = || oom_score.as_ref().and_then(|score| score.try_clone().ok());
    let streams: Streams = None;
    if wanted.runs_first {
        let began = Instant::now();
        let started = expendable(score(), || start(spec, Start::of_job(spec), (place, None), streams));
        let first = match started {
            Ok(child) => within(wanted.first_timeout, || ended(reap(child, || {}), began.elapsed(), stopped)),
            Err(code) => Ended { code: Some(code), ..Ended::default() },
        };
        wait_for_readers();
        report(&Report::First(first));
    }
    if !input.may_begin() {
        return Ok(Ended::default());
    }
    let term = wanted.terminal.as_ref().map(|terminal| terminal.term.as_str());
    let began = Instant::now();
    let session = Start { arguments: &wanted.arguments, input: Some((&input.own, term)) };
    let started = expendable(score(), || start(spec, session, (place, None), None));
    drop(input);
    silence(null)?;
    Ok(match started {
        Ok(child) => {
            if asked.load(Ordering::SeqCst) {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
            ended(reap(child, || {}), began.elapsed(), stopped)
        }
        Err(code) => Ended { code: Some(code), ..Ended::default() },
    })
}

/// Does something, and kills everything that is left of it after the limit.
fn within<T>(limit: Option<Duration>, work: impl FnOnce() -> T) -> T {
    let Some(limit) = limit else { return work() };
    let (done, waits) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if waits.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
        });
        let worked = work();
        drop(done);
        worked
    })
}

/// Waits until the worker has read what was printed: what follows in a terminal comes another way.
fn wait_for_readers() {
    let began = Instant::now();
    let unread = || {
        let waiting = |stream: std::os::fd::BorrowedFd<'_>| rustix::io::ioctl_fionread(stream).unwrap_or(0);
        waiting(io::stdout().as_fd()) + waiting(io::stderr().as_fd())
    };
    while unread() > 0 && began.elapsed() < READING {
        std::thread::sleep(Duration::from_millis(1));
    }
}
