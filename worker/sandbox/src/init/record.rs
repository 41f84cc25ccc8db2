//! Records which paths a job's processes look at: the filter hands each such call to a thread of the init, which reads the path from the
//! caller's memory and lets the call go on. Dynamic programs write most of their paths down themselves (`kiln_recorder`), so that they do
//! not have to wait.
//!
//! It is a record and not a check: a program that changes a path while it is read can hide it, but only a program that is recorded
//! itself can do that.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kiln_executor::calls::Accesses;
use kiln_kernel::notify::{Call, Heard, Listener};
use kiln_recorder::layout;
use nix::libc;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use parking_lot::Mutex;

/// `PATH_MAX`.
const LONGEST: usize = 4096;
const PAGE: usize = 4096;
/// How often a log is read that something may be writing to, and how much longer each pause is than the one before.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(1);

/// The record of a job.
pub(in super::super) struct Recorder {
    seen: Arc<Mutex<Accesses>>,
    listener: Sender<Listener>,
}

impl Recorder {
    /// Starts the thread. From the thread that starts the job's command, [`install`](Self::install) follows.
    pub(super) fn start() -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(Accesses::default()));
        let (listener, arriving) = channel();
        let into = seen.clone();
        // Started before any filter is set: its own calls must not wait for itself.
        std::thread::Builder::new().spawn(move || record(&arriving, &into))?;
        Ok(Self { seen, listener })
    }

    /// Records what this thread and whatever it starts look at from now on.
    pub(in super::super) fn install(&self) -> Result<(), String> {
        let listener = Listener::install(&kiln_seccomp::of_paths())
            .map_err(|error| format!("the kernel does not let a job be recorded: {error}"))?;
        self.listener.send(listener).map_err(|_| "the thread that records a job has ended".to_owned())
    }

    /// What is looked at, with what the job's programs write down themselves if they do.
    pub(super) fn seen(&self, preloaded: bool) -> Seen {
        Seen { seen: self.seen.clone(), preloaded }
    }
}

/// What a job looks at. Cheap to clone.
#[derive(Clone)]
pub(super) struct Seen {
    seen: Arc<Mutex<Accesses>>,
    preloaded: bool,
}

impl Seen {
    /// What was looked at so far. A call that looks at a path is noted before the kernel carries it out.
    pub(super) fn so_far(&self) -> Accesses {
        let mut seen = self.seen.lock().clone();
        if self.preloaded {
            // A program that is alive may be about to write something down.
            let is_added = (0..ATTEMPTS).any(|attempt| {
                std::thread::sleep(PAUSE * attempt);
                add_written(&mut seen).is_some()
            });
            seen.incomplete |= !is_added;
        }
        seen
    }
}

fn add_written(seen: &mut Accesses) -> Option<()> {
    let mut log = File::open(layout::LOG).ok()?;
    let mut content = vec![0; layout::COUNTER];
    log.read_exact(&mut content).ok()?;
    let used = u64::from_ne_bytes(content.as_slice().try_into().ok()?);
    log.take(used.min(layout::BYTES as u64)).read_to_end(&mut content).ok()?;
    for path in kiln_recorder::paths(&content).ok()? {
        seen.paths.insert(std::str::from_utf8(path).ok()?.to_owned());
    }
    // What belongs to the recorder is not the job's.
    seen.paths.retain(|path| !path.starts_with(layout::DIRECTORY));
    Some(())
}

fn record(arriving: &Receiver<Listener>, seen: &Mutex<Accesses>) {
    let Ok(listener) = arriving.recv() else { return };
    loop {
        match listener.next() {
            Ok(Heard::Nothing) => continue,
            Ok(Heard::End) => return,
            Ok(Heard::Call(call)) => {
                note(&listener, &call, seen);
                if listener.let_go(&call).is_ok() {
                    continue;
                }
            }
            Err(_) => {}
        }
        seen.lock().incomplete = true;
        return;
    }
}

fn note(listener: &Listener, call: &Call, seen: &Mutex<Accesses>) {
    let found = if call.architecture == kiln_seccomp::ARCHITECTURE { path(call) } else { None };
    let mut seen = seen.lock();
    match found {
        Some(Looked::Path(path)) => drop(seen.paths.insert(path)),
        Some(Looked::Listed(path)) => drop(seen.listed.insert(path)),
        Some(Looked::AtOpenFile) => {}
        // The memory of a process that was killed meanwhile cannot be read, and its call is not carried out.
        None => seen.incomplete |= listener.is_waiting(call),
    }
}

/// What a call looks at.
enum Looked {
    Path(String),
    Listed(String),
    /// At something that has been opened, and recorded, before, or at nothing.
    AtOpenFile,
}

fn path(call: &Call) -> Option<Looked> {
    let kiln_seccomp::Paths { directory, path, lists } = kiln_seccomp::paths(i64::from(call.number))?;
    let text = |path: PathBuf| path.into_os_string().into_string().ok();
    let argument = |at: usize| call.arguments.get(at).copied();
    if lists {
        let descriptor = argument(0)? as i32;
        return link(call.thread, &format!("fd/{descriptor}")).and_then(text).map(Looked::Listed);
    }
    let address = argument(path)?;
    if address == 0 {
        // Nothing is looked at: the kernel refuses it, which is how Rust's library finds out whether there is a statx(2) at all.
        return Some(Looked::AtOpenFile);
    }
    let name = read(call.thread, address)?;
    if name.is_empty() {
        return Some(Looked::AtOpenFile);
    }
    let name = PathBuf::from(OsString::from_vec(name));
    if name.as_os_str().as_bytes().starts_with(b"/") {
        return text(name).map(Looked::Path);
    }
    let base = match directory.map(|at| argument(at).map(|descriptor| descriptor as i32)) {
        None => link(call.thread, "cwd")?,
        Some(Some(libc::AT_FDCWD)) => link(call.thread, "cwd")?,
        Some(descriptor) => link(call.thread, &format!("fd/{}", descriptor?))?,
    };
    text(base.join(name)).map(Looked::Path)
}

fn link(thread: i32, name: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{thread}/{name}")).ok()
}

/// Reads a string from a thread's memory, page by page: the next page may not be there.
fn read(thread: i32, address: u64) -> Option<Vec<u8>> {
    let (mut text, mut address) = (Vec::new(), usize::try_from(address).ok()?);
    let mut page = [0; PAGE];
    while text.len() < LONGEST {
        let length = PAGE - address % PAGE;
        let remote = [RemoteIoVec { base: address, len: length }];
        let read =
            process_vm_readv(Pid::from_raw(thread), &mut [IoSliceMut::new(&mut page[..length])], &remote).ok()?;
        let read = page.get(..read)?;
        if let Some(end) = read.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&read[..end]);
            return Some(text);
        }
        text.extend_from_slice(read);
        address += length;
    }
    None
}
