//! A service beside a job's command: in the tree of one of the job's mounts as its root, with the job's network and limits.
//!
//! Invariant: it may do what a command in that root might, and nothing of the job's own root or processes is reachable for it. It ends with
//! the command.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_executor::rooted::{PATH, Service};
use kiln_executor::{User, program};
use nix::mount::{MntFlags, umount2};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pivot_root};
use rustix::fs::MemfdFlags;

use super::super::spec::Spec;
use super::apart;
use super::build::{Built, make_directory};
use super::outside::{detached, place};
use super::points::{Points, absolute};
use super::start::confine;
use super::system;

/// What of the job's own root the service has, besides its files: whether each is a directory.
const SHARED: [(&str, bool); 4] = [("/proc", true), ("/sys", true), ("/etc/hosts", false), ("/etc/resolv.conf", false)];
/// How long it may take until it listens.
const READY: Duration = Duration::from_secs(60);
/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(20);
/// The end of its output that is shown.
const SHOWN_BYTES: i64 = 64 << 10;

/// A service that runs.
#[derive(Debug)]
pub(in super::super) struct Running {
    pid: Pid,
    output: File,
    /// The job's own error output, which is closed when its command has started.
    errors: File,
}

/// Starts it, and waits until it listens. What is wrong is said on the job's error output; the answer is an exit code then.
pub(in super::super) fn begin(spec: &Spec, service: &Service) -> Result<Running, i32> {
    let failed = |message: String| {
        let _ = writeln!(std::io::stderr(), "kiln: {message}");
        126
    };
    let words = |what: &'static str| move |error: std::io::Error| failed(format!("{what}: {error}"));
    let output = rustix::fs::memfd_create("service", MemfdFlags::CLOEXEC);
    let output = File::from(output.map_err(|error| failed(format!("cannot keep the image's output: {error}")))?);
    let errors = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3);
    let errors = File::from(errors.map_err(|error| failed(format!("cannot keep the output: {error}")))?);
    let streams = (output.try_clone().map_err(words("cannot keep the image's output"))?, output.try_clone());
    let streams = (streams.0, streams.1.map_err(words("cannot keep the image's output"))?);
    nix::sys::prctl::set_dumpable(false).map_err(|error| failed(format!("cannot protect the init: {error}")))?;
    let started = std::thread::scope(|scope| {
        let thread = scope.spawn(|| started(spec, service, streams));
        thread.join().unwrap_or_else(|_| Err("the thread that starts the image panicked".to_owned()))
    });
    let pid = started.map_err(|reason| failed(format!("cannot start the image: {reason}")))?;
    let mut running = Running { pid, output, errors };
    match running.wait_until_ready(service) {
        Ok(()) => Ok(running),
        Err(reason) => {
            failed(reason);
            running.show();
            Err(125)
        }
    }
}

impl Running {
    fn wait_until_ready(&self, service: &Service) -> Result<(), String> {
        let Some(port) = service.port else { return Ok(()) };
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let began = Instant::now();
        loop {
            let listens =
                |address: &IpAddr| TcpStream::connect_timeout(&SocketAddr::new(*address, port), PAUSE).is_ok();
            if addresses.iter().any(listens) {
                return Ok(());
            }
            let how = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => Some(format!("with exit code {code}")),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(format!("by {signal}")),
                _ => None,
            };
            if let Some(how) = how {
                return Err(format!("the image ended {how} before it listened at port {port}"));
            }
            if began.elapsed() > READY {
                return Err(format!(
                    "the image did not listen at port {port} of its loopback within {} s",
                    READY.as_secs()
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Shows the end of what it printed, on the job's error output.
    pub(in super::super) fn show(&mut self) {
        let length = self.output.seek(SeekFrom::End(0)).unwrap_or(0) as i64;
        let from = SeekFrom::Start(length.saturating_sub(SHOWN_BYTES).max(0) as u64);
        let mut text = Vec::new();
        if self.output.seek(from).is_ok() && self.output.read_to_end(&mut text).is_ok() {
            let text = String::from_utf8_lossy(&text);
            let lines: String = text.lines().map(|line| format!("image: {line}\n")).collect();
            let _ = self.errors.write_all(lines.as_bytes());
        }
    }
}

/// Moves this thread into the service's root, gives up what a command may not do, and starts it.
fn started(spec: &Spec, service: &Service, (output, errors): (File, File)) -> Result<Pid, String> {
    apart::from_others("service")?;
    let mut shared = Vec::new();
    for (path, is_directory) in SHARED {
        if Path::new(path).exists() {
            shared.push((path, detached(Path::new(path))?, is_directory));
        }
    }
    shared.push(("/dev", system::own_devices(&place()?)?, true));
    enter(&service.root)?;
    let mut points = Points::default();
    for (path, tree, is_directory) in &shared {
        points.attach(Path::new(path), tree, *is_directory)?;
    }
    let user = User::find(&service.user)?;
    let directory = absolute(Path::new(&service.cwd));
    let words = |error: std::io::Error| format!("cannot make its working directory `{}`: {error}", directory.display());
    make_directory(&directory, &user).map_err(words)?;
    let place = Built::in_other_root(user, directory, points);
    confine(spec, &place, None)?;
    command(service, &place, (output, errors))
}

fn command(service: &Service, place: &Built, (output, errors): (File, File)) -> Result<Pid, String> {
    let path = service.env.iter().find(|(name, _)| name == "PATH").map_or(PATH, |(_, path)| path.as_str());
    let name = service.argv.first().map(String::as_str).unwrap_or_default();
    let file: PathBuf = program::resolve(name, &place.directory, path, "in the image").map_err(|(_, reason)| reason)?;
    let mut command = Command::new(file);
    command.arg0(name).args(service.argv.iter().skip(1)).current_dir(&place.directory);
    command.env_clear().env("HOME", &place.user.home).envs(service.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let child = command.spawn().map_err(|error| format!("`{name}`: {error}"))?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// Makes a mount the root of this thread; everything else becomes unreachable.
fn enter(root: &str) -> Result<(), String> {
    let words = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    std::env::set_current_dir(root).map_err(|error| format!("cannot enter its root: {error}"))?;
    pivot_root(".", ".").map_err(words("cannot change the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(words("cannot leave the other root"))?;
    std::env::set_current_dir("/").map_err(|error| format!("cannot enter its root: {error}"))
}
