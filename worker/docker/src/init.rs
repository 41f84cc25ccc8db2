//! A container's first process: this same program with its own libraries, whatever the image contains.
//!
//! It runs one task after another. Invariant: when it reports that a task has ended, no process of the task is left.
//! When it reports `clean`, nothing else is left either: no shared memory, queue or semaphore, and no setting of the
//! init itself that the next task would inherit. A task cannot trace it although both have the same user. When the
//! worker is gone, the init exits, and the container with it.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use super::leftovers::{self, State};
use super::wire::{self, Report, Task};
use kiln_executor::ending::Ended;
use kiln_executor::samples::Samples;
use kiln_executor::{BUILD, HOME, Job, cpus, program};
use kiln_kernel::syscalls::{self, Reaped};

/// The argument with which this program becomes a container's init.
pub(super) const NAME: &str = "kiln-container-init";
/// Where a container finds the worker's files: the init's program and the directory of the socket.
pub(super) const FILES: &str = "/kiln/init";
pub(super) const SOCKET_DIR: &str = "/kiln/door";
/// The name of the socket in its directory.
pub(super) const SOCKET: &str = "socket";
/// How often to check whether the task has reached one of its limits.
const LIMITS_EVERY: Duration = Duration::from_millis(200);

/// If this process was started as a container's init, does that work and never returns.
pub(crate) fn become_init_if_asked() {
    if getpid().as_raw() == 1 && std::env::args_os().nth(1).is_some_and(|argument| argument == NAME) {
        if let Err(reason) = run() {
            eprintln!("kiln: {reason}");
            std::process::exit(1);
        }
        std::process::exit(0);
    }
}

fn run() -> Result<(), String> {
    let door = Path::new(SOCKET_DIR).join(SOCKET);
    let socket = UnixStream::connect(&door).map_err(|error| format!("cannot reach the worker: {error}"))?;
    // Another process of the same user could otherwise read and change this one's memory.
    nix::sys::prctl::set_dumpable(false).map_err(|error| format!("cannot become undumpable: {error}"))?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| format!("cannot give up privileges: {error}"))?;
    // Not 0, because a kernel that pipes core files to a program ignores that limit (core(5)).
    setrlimit(Resource::RLIMIT_CORE, 1, 1).map_err(|error| format!("cannot set limits: {error}"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let fresh = State::look();
    report(&socket, &Report::Ready);
    while let Some((tag, output)) = wire::receive_tag(&socket).map_err(|error| error.to_string())? {
        if tag == wire::RUN {
            let task = wire::receive_task(&socket).map_err(|error| format!("cannot read a task: {error}"))?;
            if !serve(&socket, &task, output, &fresh)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn report(mut socket: &UnixStream, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = socket.write_all(&line);
    }
}

/// Runs one task until it ends; `false` if the worker is gone.
fn serve(socket: &UnixStream, task: &Task, output: Vec<OwnedFd>, fresh: &State) -> Result<bool, String> {
    let before = leftovers::Counters::look();
    let began = Instant::now();
    // The reaper closes its end when all processes are gone.
    let (over, reaping) = UnixStream::pair().map_err(|error| error.to_string())?;
    let (tell, told) = mpsc::channel();
    // Started before the task, which may leave no room for another thread.
    let reaper = std::thread::spawn(move || {
        let reaped = told.recv().map(reap).unwrap_or_default();
        drop(reaping);
        reaped
    });
    let child = match start(task, output) {
        Ok(child) => child,
        Err(Failed::Task(code)) => {
            report(socket, &Report::Started);
            let ended = Ended { code: Some(code), ..Ended::default() };
            report(socket, &Report::Ended { ended, clean: true, samples: Samples::default() });
            return Ok(true);
        }
        Err(Failed::Setup(reason)) => {
            report(socket, &Report::Setup(reason));
            return Ok(true);
        }
    };
    let _ = tell.send(child);
    report(socket, &Report::Started);
    let mut samples = Samples::since(leftovers::cpu_us());
    let there = attend(socket, &over, &before, (began, &mut samples))?;
    let (own, usage) = reaper.join().map_err(|_| "cannot wait for a task".to_owned())?;
    let failed = own.code != Some(0);
    let now = leftovers::Counters::look();
    if !samples.is_empty() {
        samples.look(began.elapsed(), leftovers::cpu_us());
    }
    let ended = Ended {
        code: own.code,
        signal: own.signal,
        out_of_memory: now.out_of_memory > before.out_of_memory,
        too_many_processes: failed && now.too_many_processes > before.too_many_processes,
        wall_us: began.elapsed().as_micros() as u64,
        user_us: usage.user_us,
        system_us: usage.system_us,
        peak_bytes: usage.peak_bytes,
    };
    let clean =
        leftovers::remove(fresh) && State::look() == *fresh && !(task.private_network && leftovers::has_connections());
    report(socket, &Report::Ended { ended, clean, samples });
    Ok(there)
}

/// Listens to the worker while a task runs, and stops the task if it has reached a limit: its remaining processes might
/// otherwise wait or retry forever.
fn attend(
    socket: &UnixStream,
    over: &UnixStream,
    before: &leftovers::Counters,
    (began, samples): (Instant, &mut Samples),
) -> Result<bool, String> {
    let pause = PollTimeout::try_from(LIMITS_EVERY).unwrap_or(PollTimeout::NONE);
    let happened = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
    loop {
        let mut watched =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(over.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, pause) {
            Ok(0) if leftovers::Counters::look().reached_a_limit_since(before) => stop(),
            Ok(0) => {
                if let Some((elapsed, cpu_us, memory_bytes)) = sample(began.elapsed(), samples) {
                    report(socket, &Report::Used(elapsed, cpu_us, memory_bytes));
                }
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        if happened(&watched[1]) {
            return Ok(true);
        }
        if happened(&watched[0]) {
            stop();
            if wire::receive_tag(socket).map_err(|error| error.to_string())?.is_none() {
                return Ok(false);
            }
        }
    }
}

/// Looks at what the container's processes use, if it is time.
fn sample(elapsed: Duration, samples: &mut Samples) -> Option<(Duration, u64, u64)> {
    samples.saw(leftovers::memory_bytes());
    samples.is_due(elapsed).then(|| samples.look(elapsed, leftovers::cpu_us()))?;
    samples.last()
}

/// Kills every process of the container except this one.
fn stop() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

#[derive(Default)]
struct Usage {
    user_us: u64,
    system_us: u64,
    peak_bytes: u64,
}

/// Reaps until the command has ended, then kills and reaps the remaining processes.
fn reap(child: Pid) -> (Reaped, Usage) {
    let (mut own, mut usage) = (Reaped::default(), Usage::default());
    loop {
        match syscalls::reap_any() {
            Ok(Some(reaped)) => {
                usage.user_us += reaped.user_us;
                usage.system_us += reaped.system_us;
                usage.peak_bytes = usage.peak_bytes.max(reaped.peak_bytes);
                if reaped.pid == child.as_raw() {
                    own = reaped;
                    stop();
                }
            }
            Ok(None) => return (own, usage),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return (own, usage),
        }
    }
}

enum Failed {
    /// An exit code as a shell would give it; the message is on standard error.
    Task(i32),
    Setup(String),
}

fn start(task: &Task, output: Vec<OwnedFd>) -> Result<Pid, Failed> {
    let [stdout, stderr]: [OwnedFd; 2] =
        output.try_into().map_err(|_| Failed::Setup("the worker sent no output streams".to_owned()))?;
    let mut complaints = std::fs::File::from(
        stderr.try_clone().map_err(|error| Failed::Setup(format!("cannot use the output: {error}")))?,
    );
    let mut refuse = |code: i32, message: String| {
        let _ = writeln!(complaints, "kiln: {message}");
        Failed::Task(code)
    };
    for path in &task.make_directories {
        let to = Path::new(BUILD).join(path);
        std::fs::create_dir_all(&to)
            .map_err(|error| Failed::Setup(format!("cannot create `{path}`, the parent of an output: {error}")))?;
    }
    task.secrets.write_files(Path::new(HOME)).map_err(|error| {
        Failed::Setup(format!("cannot write the farm's credentials into the home directory: {error}"))
    })?;
    let environment = environment(task);
    let directory = Path::new(BUILD).join(&task.working_directory);
    let name = task.arguments.first().map(String::as_str).unwrap_or_default();
    let path = environment.get("PATH").map_or("", String::as_str);
    let resolved =
        program::resolve(name, &directory, path, "in the image").map_err(|(code, message)| refuse(code, message))?;
    let mut command = Command::new(&resolved);
    command
        .arg0(name)
        .args(task.arguments.iter().skip(1))
        .env_clear()
        .envs(&environment)
        .envs(task.secrets.variables())
        .current_dir(&directory)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    let child = cpus::starting(task.cpus, || command.spawn())
        .map_err(|error| refuse(126, format!("cannot start `{}` in the image: {error}", resolved.display())))?;
    // If memory is short, the kernel kills the task and not this process.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "500");
    Ok(Pid::from_raw(child.id() as i32))
}

/// The image's own variables, then the task's.
fn environment(task: &Task) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> =
        std::env::vars().filter(|(name, _)| name != "HOME" && name != "HOSTNAME").collect();
    let path = environment.get("PATH").cloned().unwrap_or_default();
    environment.extend(task.environment.clone());
    Job::add_defaults(&mut environment, &path, HOME);
    environment
}
