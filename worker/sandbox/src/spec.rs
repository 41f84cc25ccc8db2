//! Messages between the worker and a job's init.
//!
//! The worker sends one byte with the descriptors that the job needs, then one line of JSON. The init answers with one
//! line of JSON for each [`Report`]. Later lines from the worker are [`GO`], [`LOOK`] or [`STOP`].

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use super::rooted::{Beside, RootSpec};
use kiln_executor::Secrets;
use kiln_executor::calls::Accesses;
use kiln_executor::ending::Ended;
use kiln_executor::session::Wanted;
use kiln_kernel::syscalls;

/// The network is connected: the command may start.
pub(super) const GO: &str = "go\n";
/// What has the command looked at so far?
pub(super) const LOOK: &str = "look\n";
/// The job must be stopped.
pub(super) const STOP: &str = "stop\n";
/// The job's tree is no longer needed.
pub(super) const RELEASE: &str = "release\n";
/// What comes with the descriptors of a job, before its specification.
pub(super) const JOB: u8 = b'J';
/// Maximum number of descriptors in one message (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;

/// Where something in the sandbox comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Source {
    /// A path that the job's user can reach.
    Path(PathBuf),
    /// A mount that the worker sent along, by its index.
    Sent(usize),
    /// A path below one of the [`Spec::stage`]s.
    Staged(PathBuf),
}

/// A file or directory of the host that appears in the sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bind {
    pub(super) from: Source,
    pub(super) is_directory: bool,
    /// Whether a user without privileges can reach it on the machine.
    pub(super) is_public: bool,
    /// Absolute path in the sandbox.
    pub(super) to: PathBuf,
    pub(super) writable: bool,
}

/// The input tree: its layers, and where writes go, all of them below stages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tree {
    pub(super) lower: Vec<PathBuf>,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
}

/// A job's network access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Network {
    /// Only its own loopback.
    None,
    /// The machine's network.
    Machine,
    /// A network of its own, which the worker connects while the init waits.
    Own,
}

/// Everything that the init needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    /// If the job has its own ids: its user id outside the namespace, which is the first descriptor.
    pub(super) user: Option<u32>,
    /// Sources that are mounted where the command cannot see them, each at its index, until the root is built.
    pub(super) stage: Vec<Source>,
    pub(super) binds: Vec<Bind>,
    /// What comes before them: the job's own directories.
    pub(super) own: Vec<Bind>,
    /// Whether further jobs run in the same sandbox once this one's tree is no longer needed.
    pub(super) kept: bool,
    /// Symbolic links: path and target.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// Small files that the sandbox provides itself: path and content.
    pub(super) files: Vec<(PathBuf, String)>,
    pub(super) tree: Tree,
    pub(super) network: Network,
    /// Whether the network is sent along, as the second descriptor, and has its loopback.
    pub(super) loopback: bool,
    /// The default routes (IPv4, IPv6) whose appearance shows the init that its own network is connected.
    pub(super) routes: (bool, bool),
    /// The port of its network's loopback at which the worker listens. The last descriptor is a socket for the listener.
    pub(super) listens: Option<u16>,
    /// Ports of its own network's loopback that are forwarded to the machine's.
    pub(super) ports: Vec<u16>,
    /// Networks that must be unreachable from the job's own network.
    pub(super) unreachable: Vec<(std::net::IpAddr, u8)>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) secrets: Secrets,
    pub(super) working_directory: String,
    pub(super) make_directories: Vec<String>,
    /// Maximum bytes of shared memory (`/dev/shm`).
    pub(super) shared_memory_bytes: u64,
    /// Maximum bytes of one file.
    pub(super) file_bytes: u64,
    /// The memory limit that the init enforces if no control group does.
    pub(super) memory_bytes: Option<u64>,
    pub(super) max_processes: Option<u32>,
    /// What the job takes for the name of the machine.
    pub(super) hostname: String,
    /// How many CPUs it may run on, if that is fewer than all.
    pub(super) cpus: Option<u32>,
    /// Whether to report what the command looks at.
    pub(super) recorded: bool,
    /// Whether its dynamic programs record that themselves.
    pub(super) preloaded: bool,
    /// The caches and sockets of a job without a root of its own.
    pub(super) beside: Option<Beside>,
    /// What runs in the job's place for somebody who watches. The last descriptor that is sent is the socket to which the init sends where its input
    /// is written to, and where it waits for its beginning.
    pub(super) session: Option<Wanted>,
    /// The root of a job that has one of its own. Then binds, links and the tree are empty, and files are mounted.
    pub(super) rooted: Option<RootSpec>,
}

/// What the init reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Report {
    /// The init is waiting for its network to be connected.
    Network,
    /// The command could not be started because of the sandbox.
    Setup(String),
    /// The command could not be started because the job asks for what its root does not have.
    Refused(String),
    /// The init's descriptor of the job's root, if the sandbox is kept; the report of its end follows.
    Root(i32),
    /// The job's own command has ended, and a session follows.
    First(Ended),
    /// The session is ready, and where its input is written to has been sent.
    Opened,
    /// What the command has looked at so far. One of these comes before the report of its end.
    Accessed(Accesses),
    Ended(Ended),
}

/// Sends the descriptors of a job in one non-blocking call.
pub(super) fn send(socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &control[..0] } else { &control[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(&[JOB])], control, flags, None)?;
    Ok(())
}

/// Waits for the descriptors of a job.
pub(super) fn receive(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let (mut byte, mut descriptors) = ([0], Vec::new());
    match receive_with(socket, &mut byte, &mut descriptors)? {
        1 => Ok(descriptors),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Receives bytes, and adds the descriptors that come with them.
pub(super) fn receive_with(
    socket: &impl AsRawFd,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut pieces = [IoSliceMut::new(bytes)];
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            descriptors.extend(raw.into_iter().map(syscalls::own));
        }
    }
    Ok(message.bytes)
}
