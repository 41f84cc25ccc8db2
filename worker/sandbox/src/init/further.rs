//! A sandbox that runs one job after another.
//!
//! This process keeps what is the same for all of them: user, process and network namespaces, and the machine's files. Each job has a thread,
//! and that thread mounts and System V objects of its own: a copy of the mounts that have been prepared, with the job's inputs, `/tmp`,
//! shared memory and terminals. Only that thread is restricted as the job is; this one never runs anything.
//!
//! Invariants: the next job starts when no process and no thread of the last one is left; what a job could write to, no other ever sees;
//! process ids begin anew.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use super::super::root;
use super::super::spec::{self, JOB, RELEASE, Report, STOP, Spec};
use super::{Streams, carry_out, limit, report, silence};

/// Where the kernel says which process id of this namespace was the last (pid_namespaces(7)).
const LAST_PROCESS: &str = "/proc/sys/kernel/ns_last_pid";
/// The last id before that of a job's thread, and before those of its processes. A thread of the last job may be about to vanish.
const BEFORE_THREAD: &[u8] = b"9";
const BEFORE_PROCESSES: &[u8] = b"31";

/// Runs jobs until the worker closes the socket.
pub(super) fn serve(
    spec: Spec,
    sent: Vec<OwnedFd>,
    control: BufReader<UnixStream>,
    null: &File,
    oom_score: Option<File>,
) -> Result<(), String> {
    let io = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // Opened now: the machine's files are out of reach afterwards.
    let last_process = File::options().write(true).open(LAST_PROCESS).ok();
    root::prepare(&spec, &sent)?;
    limit(&spec)?;
    let own = |stream: std::os::fd::BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(stream, 3).map_err(io::Error::from);
    let streams = own(io::stdout().as_fd()).and_then(|output| Ok((output, own(io::stderr().as_fd())?)));
    let streams = streams.map_err(io("cannot pass on the output"))?;
    silence(null).map_err(io("cannot close the output"))?;
    let mut control = Control::new(control);
    let mut next = Some((spec, sent, streams));
    while let Some((spec, sent, streams)) = next {
        let set_last = |to| last_process.as_ref().map(|last| last.write_all_at(to, 0));
        let asked = Arc::new(AtomicBool::new(false));
        let (release, released) = channel();
        let (null, oom_score) = (null.try_clone(), oom_score.as_ref().map(File::try_clone).transpose());
        let (null, oom_score) = null.and_then(|null| Ok((null, oom_score?))).map_err(io("cannot start a job"))?;
        let stop = asked.clone();
        let (begin, begun) = channel();
        let work = move || {
            let _ = begun.recv();
            if let Err(reason) = job(&spec, sent, streams, (&null, oom_score), &stop, &released) {
                report(&Report::Setup(reason));
            }
        };
        set_last(BEFORE_THREAD);
        let running = std::thread::Builder::new().spawn(work).map_err(io("cannot start a job"))?;
        set_last(BEFORE_PROCESSES);
        let _ = begin.send(());
        // When this process exits, every process in its namespace is killed.
        while let Some(line) = control.line().map_err(io("cannot listen to the worker"))? {
            match line.as_str() {
                STOP => {
                    asked.store(true, Ordering::SeqCst);
                    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
                }
                RELEASE => break,
                _ => return Err("a job has not been released".to_owned()),
            }
        }
        drop(release);
        if running.join().is_err() {
            return Err("the thread of a job panicked".to_owned());
        }
        next = control.job()?;
    }
    std::process::exit(0)
}

/// Runs one job, and keeps its tree until it is released.
fn job(
    spec: &Spec,
    sent: Vec<OwnedFd>,
    (output, errors): (OwnedFd, OwnedFd),
    (null, oom_score): (&File, Option<File>),
    asked: &AtomicBool,
    released: &Receiver<()>,
) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .map_err(|error| format!("the kernel refuses namespaces: {error}"))?;
    root::complete(spec, &sent)?;
    drop(sent);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(|error| format!("cannot open the root: {error}"))?;
    report(&Report::Root(root.as_raw_fd()));
    let streams: Streams = Some((output, errors));
    carry_out((spec, None), None, streams, (null, oom_score), asked, |_| Ok(()))?;
    let _ = released.recv();
    Ok(())
}

/// A job, with its mounts and its streams.
type Sent = (Spec, Vec<OwnedFd>, (OwnedFd, OwnedFd));

/// What the worker says: lines, and descriptors that come with them.
struct Control {
    socket: UnixStream,
    read: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Control {
    fn new(control: BufReader<UnixStream>) -> Self {
        let read = control.buffer().to_owned();
        Self { socket: control.into_inner(), read, descriptors: Vec::new() }
    }

    /// The next line; none if the worker has closed the socket.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut buffer = [0; 4096];
        let mut from = 0;
        loop {
            if let Some(end) = self.read[from..].iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=from + end).collect();
                return String::from_utf8(line).map(Some).map_err(io::Error::other);
            }
            from = self.read.len();
            match spec::receive_with(&self.socket, &mut buffer, &mut self.descriptors) {
                Ok(0) => return Ok(None),
                Ok(length) => self.read.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next job; none if there is none.
    fn job(&mut self) -> Result<Option<Sent>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot read the job: {error}");
        let Some(line) = self.line().map_err(|error| failed(&error))? else { return Ok(None) };
        let line = line.strip_prefix(char::from(JOB)).ok_or_else(|| failed(&"it has no descriptors"))?;
        let spec = serde_json::from_str(line).map_err(|error| failed(&error))?;
        let mut sent = std::mem::take(&mut self.descriptors);
        match (sent.pop(), sent.pop()) {
            (Some(errors), Some(output)) => Ok(Some((spec, sent, (output, errors)))),
            _ => Err(failed(&"its streams are missing")),
        }
    }
}
