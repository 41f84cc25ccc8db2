//! `slirp4netns`, with a forwarder to individual ports of the machine's loopback, which it does not offer itself.
//!
//! Three short-lived roles of this program. The connection forks a forwarder and becomes `slirp4netns`. The forwarder
//! has a listener open sockets inside the step's network, receives them, and forwards each connection to the machine's
//! loopback. All of them run as the step's user and end with the connection.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use super::super::spec;
use super::launch;

const CONNECTION: &str = "kiln-sandbox-slirp";
const FORWARDER: &str = "kiln-sandbox-forwarder";
const LISTENER: &str = "kiln-sandbox-listener";
/// The step's network, from a range that IANA reserves for protocols (RFC 6890), so that it hides no company's private
/// network.
const NETWORK: &str = "192.0.0.0/24";
/// The address of its DNS forwarder: the third of its network.
pub(super) const NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 3));
/// Largest frame; frames never cross a real network.
const FRAME_BYTES: &str = "65520";
/// Maximum number of a step's simultaneous connections to the machine's loopback.
const MAX_CONNECTIONS: usize = 256;
/// Limit for connecting to the machine's loopback.
const CONNECTING: Duration = Duration::from_secs(10);

/// The command that keeps the network of process `pid` connected.
pub(super) fn connection(init: &Path, program: &Path, pid: u32, user: Option<u32>, ports: &[u16]) -> Command {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut command = Command::new(init);
    command.arg0(CONNECTION).arg(program).arg(pid.to_string()).arg(ports.join(","));
    command.args(user.map(|user| user.to_string()));
    command
}

/// If this process was started for one of the roles, plays it and never returns.
pub(super) fn become_part_if_asked() {
    let mut arguments = std::env::args();
    let role = arguments.next().unwrap_or_default();
    let played = match role.as_str() {
        CONNECTION => connect(arguments),
        FORWARDER => forward(arguments),
        LISTENER => listen(arguments),
        _ => return,
    };
    match played {
        Ok(()) => std::process::exit(0),
        Err(reason) => {
            eprintln!("{reason}");
            std::process::exit(1);
        }
    }
}

type Played = Result<(), String>;

fn words(what: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// This same program in another role.
fn role(name: &str, pid: &str, ports: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args([pid, ports]).env_clear();
    command
}

fn connect(mut arguments: std::env::Args) -> Played {
    let mut next = || arguments.next().ok_or("a network connection is missing an argument");
    let (program, pid, ports) = (PathBuf::from(next()?), next()?, next()?);
    if let Ok(user) = next() {
        let user = user.parse().map_err(|_| "invalid user id for a network")?;
        launch::become_maker(user).map_err(|error| format!("cannot prepare a network: {error}"))?;
    }
    if !ports.is_empty() {
        let mut forwarder = role(FORWARDER, &pid, &ports)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(words("cannot start a forwarder"))?;
        let ready = forwarder.stdout.take().map(|mut stdout| stdout.read_exact(&mut [0]));
        ready.unwrap_or(Ok(())).map_err(words("the forwarder to the machine's loopback did not start"))?;
    }
    // Not `--enable-sandbox`: it becomes group 0, which the namespace of an action's ids does not have.
    let error = Command::new(program)
        .args(["--enable-seccomp", "--configure", "--disable-host-loopback", "--mtu", FRAME_BYTES, "--cidr", NETWORK])
        .args(["--netns-type", "path", "--userns-path", &format!("/proc/{pid}/ns/user")])
        .args([&format!("/proc/{pid}/ns/net"), "tap0"])
        .exec();
    Err(format!("cannot start slirp4netns: {error}"))
}

fn forward(mut arguments: std::env::Args) -> Played {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("cannot tie the forwarder: {error}"))?;
    let (pid, ports) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let (own, theirs) = UnixStream::pair().map_err(words("cannot create a socket"))?;
    let mut listener = role(LISTENER, &pid, &ports)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(words("cannot start a listener"))?;
    let sockets = spec::receive(&own).map_err(words("no listening sockets received"))?;
    let _ = listener.wait();
    let open = Arc::new(AtomicUsize::new(0));
    for socket in sockets {
        let (listener, open) = (TcpListener::from(socket), open.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let open = open.clone();
                if open.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS {
                    std::thread::spawn(move || {
                        let _ = carry(stream);
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                } else {
                    open.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
    }
    let mut stdout = io::stdout();
    stdout.write_all(b"!").and_then(|()| stdout.flush()).map_err(words("cannot report readiness"))?;
    loop {
        std::thread::park();
    }
}

/// Forwards a connection to the same port of the machine's loopback, over IPv4 or IPv6: a client of `localhost` need
/// not know on which of the two the service listens.
fn carry(inside: TcpStream) -> io::Result<()> {
    let address = inside.local_addr()?;
    let other: IpAddr = if address.is_ipv4() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let outside = TcpStream::connect_timeout(&address, CONNECTING)
        .or_else(|_| TcpStream::connect_timeout(&(other, address.port()).into(), CONNECTING))?;
    let (mut from, mut to) = (inside.try_clone()?, outside.try_clone()?);
    let there = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (outside, inside);
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = there.join();
    Ok(())
}

/// Opens sockets inside a process's network and hands them to the forwarder.
fn listen(mut arguments: std::env::Args) -> Played {
    let (pid, ports) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(words("no socket to the forwarder"))?;
    let enter = |kind: &str, flag: CloneFlags| {
        let path = format!("/proc/{pid}/ns/{kind}");
        let namespace = std::fs::File::open(&path).map_err(|error| format!("cannot open `{path}`: {error}"))?;
        setns(namespace, flag).map_err(|error| format!("cannot enter `{path}`: {error}"))
    };
    let network =
        std::fs::File::open(format!("/proc/{pid}/ns/net")).map_err(words("cannot open the step's network"))?;
    enter("user", CloneFlags::CLONE_NEWUSER)?;
    setns(network, CloneFlags::CLONE_NEWNET).map_err(|error| format!("cannot enter the step's network: {error}"))?;
    let mut listeners = Vec::new();
    for port in ports.split(',') {
        let port: u16 = port.parse().map_err(|_| format!("invalid port `{port}`"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        listeners.push(listener.map_err(words("cannot listen on the step's loopback"))?);
        // A network without IPv6 lacks this address.
        listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)));
    }
    let descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    spec::send(UnixStream::from(socket), &descriptors).map_err(words("cannot hand over sockets"))
}
