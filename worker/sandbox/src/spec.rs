//! What the worker tells a job's init, and what it hears back.
//!
//! The worker sends a byte with the descriptors that the job needs, then one line of JSON. The init answers with a line of JSON for
//! each [`Report`]. A line from the worker after that is one of [`GO`] and [`STOP`].

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use kiln_executor::Secrets;
use kiln_executor::ending::Ended;
use kiln_kernel::syscalls;

/// The network is there: the command may start.
pub(super) const GO: &str = "go\n";
/// Everything is to be stopped.
pub(super) const STOP: &str = "stop\n";
/// Most descriptors that one message carries (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;

/// Something of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Source {
    /// A path that the job's user reaches.
    Path(PathBuf),
    /// A mount that the worker made and sent along, by its number.
    Sent(usize),
    /// Below one of the [`Spec::stage`]s.
    Staged(PathBuf),
}

/// Something of the host that appears in the sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bind {
    pub(super) from: Source,
    pub(super) is_directory: bool,
    /// Whether a user without any rights on the machine reaches it.
    pub(super) is_public: bool,
    /// Absolute, in the sandbox.
    pub(super) to: PathBuf,
    pub(super) writable: bool,
}

/// The input tree: layers, and where what is written goes, all of them below stages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tree {
    pub(super) lower: Vec<PathBuf>,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
}

/// How a job is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Network {
    /// To itself.
    None,
    /// As the machine is.
    Machine,
    /// By a network of its own that the worker connects, while the init waits.
    Own,
}

/// Everything that the init needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    /// Where the job has ids of its own: its user outside of the namespace, which is the first descriptor.
    pub(super) user: Option<u32>,
    /// Mounted out of the command's sight, each at its number, until the root is built.
    pub(super) stage: Vec<Source>,
    pub(super) binds: Vec<Bind>,
    /// Symbolic links: where, and to what.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// Small files that the sandbox brings itself: where, and what is in them.
    pub(super) files: Vec<(PathBuf, String)>,
    pub(super) tree: Tree,
    pub(super) network: Network,
    /// Default routes by which the init sees that its own network is connected: of IPv4, of IPv6.
    pub(super) routes: (bool, bool),
    /// Networks that an own network does not lead to.
    pub(super) unreachable: Vec<(std::net::IpAddr, u8)>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) secrets: Secrets,
    pub(super) working_directory: String,
    pub(super) make_directories: Vec<String>,
    /// Most bytes of memory that look like files.
    pub(super) shared_memory_bytes: u64,
    /// Most bytes of one file.
    pub(super) file_bytes: u64,
    /// Watched by the init where no control group does.
    pub(super) memory_bytes: Option<u64>,
    pub(super) max_processes: Option<u32>,
}

/// What the init reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Report {
    /// Its network waits to be connected.
    Network,
    /// The command could not be started, and it is the sandbox's fault.
    Setup(String),
    Ended(Ended),
}

/// Sends the descriptors of a job, in one call that does not block.
pub(super) fn send(socket: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &control[..0] } else { &control[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"J")], control, flags, None)?;
    Ok(())
}

/// Waits for the descriptors of a job.
pub(super) fn receive(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut pieces = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    if message.bytes != 1 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            descriptors.extend(raw.into_iter().map(syscalls::own));
        }
    }
    Ok(descriptors)
}
