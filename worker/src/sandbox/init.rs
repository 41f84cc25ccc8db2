//! The init of a job: a process of this same program that makes the namespaces, builds the root, starts the command and
//! reaps what it leaves.
//!
//! It talks with the worker over the socket that is its standard input. When the worker closes that, or dies, the init ends,
//! and with it every process of its namespace.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, sethostname, setsid};

use super::spec::{Report, Spec};
use super::{calls, root};
use crate::executor::ending::Ended;
use crate::executor::{BUILD, program};
use crate::syscalls;

/// The name under which this program starts to become an init.
pub(super) const NAME: &str = "kiln-sandbox-init";
/// The user and group that an action sees itself as.
pub(super) const USER: u32 = 1000;

/// Where this process was started as a job's init, it does that work and does not return.
pub(crate) fn become_init_if_asked() {
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        let code = match run() {
            Ok(()) => 0,
            Err(reason) => {
                report(&Report::Setup(reason));
                1
            }
        };
        std::process::exit(code);
    }
}

/// The socket to the worker.
fn socket() -> std::io::Result<UnixStream> {
    // Closed in the command: what is said there is said in the init's name.
    Ok(UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?))
}

fn report(report: &Report) {
    if let (Ok(mut socket), Ok(mut line)) = (socket(), serde_json::to_vec(report)) {
        line.push(b'\n');
        let _ = socket.write_all(&line);
    }
}

fn run() -> Result<(), String> {
    let words = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    syscalls::close_on_exec_from(3).map_err(words("cannot close what the worker left open"))?;
    let mut control = BufReader::new(socket().map_err(words("no socket to the worker"))?);
    let mut line = String::new();
    control.read_line(&mut line).map_err(words("cannot read the job"))?;
    let spec: Spec = serde_json::from_str(&line).map_err(|error| format!("cannot read the job: {error}"))?;
    let errno = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");

    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if !spec.network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags).map_err(errno("the kernel refuses namespaces"))?;
    std::fs::write("/proc/self/setgroups", "deny").map_err(words("cannot fix the groups"))?;
    std::fs::write("/proc/self/uid_map", format!("{USER} {uid} 1")).map_err(words("cannot map the user"))?;
    std::fs::write("/proc/self/gid_map", format!("{USER} {gid} 1")).map_err(words("cannot map the group"))?;
    match syscalls::fork_alone().map_err(words("cannot fork"))? {
        Some(child) => {
            silence().map_err(words("cannot let go of the output"))?;
            drop(control);
            let _ = waitpid(child, None);
            std::process::exit(0);
        }
        None => as_pid_one(spec, control),
    }
}

/// Lets go of the command's output, so that it ends when the command's processes have ended.
fn silence() -> std::io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn as_pid_one(spec: Spec, control: BufReader<UnixStream>) -> Result<(), String> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let errno = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(errno("cannot tie the init to the worker"))?;
    let _ = setsid();
    sethostname("kiln").map_err(errno("cannot set the host's name"))?;
    if !spec.network {
        syscalls::loopback_up().map_err(io("cannot bring the loopback interface up"))?;
    }
    root::build(&spec)?;
    // The worker reads what the command left through /proc/PID/root.
    nix::sys::prctl::set_dumpable(true).map_err(errno("cannot become readable to the worker"))?;
    nix::sys::prctl::set_no_new_privs().map_err(errno("cannot give privileges up"))?;
    // Not 0, which a kernel that hands cores to a program ignores; 1 it takes for "none", and no file fits into it (core(5)).
    setrlimit(Resource::RLIMIT_CORE, 1, 1).map_err(errno("cannot set limits"))?;
    if let Some(most) = spec.max_processes {
        // The watchdog names the excess and ends it; beyond twice that the kernel refuses, so that nothing outruns it. (Counted in
        // this user namespace alone; not for a worker that is root, which has control groups.)
        let most = 2 * u64::from(most) + 64;
        let _ = setrlimit(Resource::RLIMIT_NPROC, most, most);
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    calls::restrict(spec.network)?;
    // A command runs as a user without any capability: `execve` drops them all for it.
    let began = Instant::now();
    let child = match start(&spec) {
        Ok(child) => child,
        Err((code, message)) => {
            eprintln!("kiln: {message}");
            silence().map_err(io("cannot let go of the output"))?;
            report(&Report::Ended(Ended { code: Some(code), ..Ended::default() }));
            return hold(control);
        }
    };
    silence().map_err(io("cannot let go of the output"))?;
    let stopped = Arc::new(AtomicU8::new(0));
    watch(&spec, stopped.clone());
    let most = spec.max_processes;
    std::thread::spawn(move || {
        let status = reap(child, || {
            // It may have ended because it was refused a process, before the watchdog looked.
            if most.is_some_and(|most| usage().0 > most) {
                let _ = stopped.compare_exchange(0, TOO_MANY_PROCESSES, Ordering::SeqCst, Ordering::SeqCst);
            }
        });
        let ended = ended(status, began.elapsed(), stopped.load(Ordering::SeqCst));
        report(&Report::Ended(ended));
    });
    hold(control)
}

/// Keeps the mounts until the worker lets go; a line from it means that everything is to be stopped.
fn hold(mut control: BufReader<UnixStream>) -> Result<(), String> {
    let mut line = String::new();
    while control.read_line(&mut line).is_ok_and(|read| read > 0) {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        line.clear();
    }
    // The end of PID 1 is the end of every process in its namespace.
    std::process::exit(0);
}

fn start(spec: &Spec) -> Result<Pid, (i32, String)> {
    let directory = Path::new(BUILD).join(&spec.working_directory);
    let program = spec.arguments.first().map(String::as_str).unwrap_or_default();
    let path = spec.environment.get("PATH").map_or("", String::as_str);
    let resolved = program::resolve(program, &directory, path, "on this worker")?;
    let mut command = Command::new(&resolved);
    command
        .arg0(program)
        .args(spec.arguments.iter().skip(1))
        .env_clear()
        .envs(&spec.environment)
        .envs(spec.secrets.variables())
        .current_dir(&directory)
        .stdin(Stdio::null());
    match command.spawn() {
        Ok(child) => Ok(Pid::from_raw(child.id() as i32)),
        Err(error) => Err((126, format!("cannot start `{}`: {error}", resolved.display()))),
    }
}

/// Reaps until the command has ended, looks at what it leaves, then stops the rest and reaps that.
fn reap(child: Pid, look: impl Fn()) -> Option<WaitStatus> {
    let mut own = None;
    loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(status) if status.pid() == Some(child) => {
                own = Some(status);
                look();
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return own,
        }
    }
}

fn ended(status: Option<WaitStatus>, wall: Duration, stopped: u8) -> Ended {
    let (code, signal) = match status {
        Some(WaitStatus::Exited(_, code)) => (Some(code), None),
        Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
        _ => (None, None),
    };
    let mut ended = Ended {
        code,
        signal,
        out_of_memory: stopped == OUT_OF_MEMORY,
        too_many_processes: stopped == TOO_MANY_PROCESSES,
        wall_us: wall.as_micros() as u64,
        ..Ended::default()
    };
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) {
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
        ended.user_us = micros(usage.user_time());
        ended.system_us = micros(usage.system_time());
        ended.peak_bytes = usage.max_rss() as u64 * 1024;
    }
    ended
}

const OUT_OF_MEMORY: u8 = 1;
const TOO_MANY_PROCESSES: u8 = 2;
/// How often the watchdog looks.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Where no control group sets the limits, this looks at the namespace's own /proc.
fn watch(spec: &Spec, stopped: Arc<AtomicU8>) {
    let (memory, processes) = (spec.memory_bytes, spec.max_processes);
    if memory.is_none() && processes.is_none() {
        return;
    }
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(WATCH_EVERY);
            let (count, bytes) = usage();
            let reason = if memory.is_some_and(|most| bytes > most) {
                OUT_OF_MEMORY
            } else if processes.is_some_and(|most| count > most) {
                TOO_MANY_PROCESSES
            } else {
                continue;
            };
            let _ = stopped.compare_exchange(0, reason, Ordering::SeqCst, Ordering::SeqCst);
            // A fork bomb outruns one sweep.
            for _ in 0..1000 {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
                if usage().0 == 0 {
                    break;
                }
            }
        }
    });
}

/// Processes of this namespace but the init, and their resident bytes.
fn usage() -> (u32, u64) {
    let page = rustix::param::page_size() as u64;
    let (mut count, mut bytes) = (0, 0);
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()).filter(|pid| *pid != 1) else {
            continue;
        };
        count += 1;
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let mut fields = statm.split_whitespace().skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
        let (resident, shared) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
        bytes += resident.saturating_sub(shared) * page;
    }
    (count, bytes)
}
