//! Messages between the worker and a container's init, over one Unix socket.
//!
//! The worker sends a tag byte. [`RUN`] comes with two descriptors, standard output and error, and is followed by the
//! task as a length and JSON; [`STOP`] stands alone. The init answers with one line of JSON for each [`Report`].

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use kiln_executor::Secrets;
use kiln_executor::ending::Ended;
use kiln_executor::samples::Samples;
use kiln_kernel::syscalls;

/// A task follows.
pub(super) const RUN: u8 = b'R';
/// The running task must be stopped completely.
pub(super) const STOP: u8 = b'S';
/// Maximum size of a task: the kernel's limit on arguments and variables is below this.
const MAX_TASK_BYTES: u32 = 64 << 20;

/// A command for the init to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) arguments: Vec<String>,
    /// Takes precedence over the image's variables.
    pub(super) environment: BTreeMap<String, String>,
    pub(super) secrets: Secrets,
    pub(super) working_directory: String,
    pub(super) make_directories: Vec<String>,
    /// CPUs that the command may run on; `None`: all of the container's.
    pub(super) cpus: Option<u32>,
    /// Whether the container has its own network, without any other sockets in it.
    pub(super) private_network: bool,
}

/// A message from the init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It is waiting for tasks.
    Ready,
    /// The command is running.
    Started,
    /// What the running command has used so far: after so long, so much CPU time in microseconds, and so much memory.
    Used(Duration, u64, u64),
    /// The command could not be started, for a reason outside the command.
    Setup(String),
    /// The command and everything that it started are gone. `clean`: it left nothing else either.
    Ended { ended: Ended, clean: bool, samples: Samples },
}

/// Sends a task's tag and descriptors in one non-blocking call.
pub(super) fn send_tag(socket: BorrowedFd<'_>, output: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let descriptors: [RawFd; 2] = output.map(|descriptor| descriptor.as_raw_fd());
    let control = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&[RUN])], &control, flags, None)?;
    Ok(())
}

/// Encodes a task.
pub(super) fn encode(task: &Task) -> io::Result<Zeroizing<Vec<u8>>> {
    let json = Zeroizing::new(serde_json::to_vec(task)?);
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_TASK_BYTES);
    let length = length.ok_or_else(|| io::Error::other("the command line is too long"))?;
    Ok(Zeroizing::new([&length.to_be_bytes()[..], &json].concat()))
}

/// Waits for a tag; `None` if the worker is gone.
pub(super) fn receive_tag(socket: &UnixStream) -> io::Result<Option<(u8, Vec<OwnedFd>)>> {
    let mut byte = [0];
    let mut pieces = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .map_err(io::Error::from)?;
    let received = message.bytes;
    let mut descriptors = Vec::new();
    for control in message.cmsgs().map_err(io::Error::from)? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            descriptors.extend(raw.into_iter().map(syscalls::own));
        }
    }
    Ok((received == 1).then(|| (byte[0], descriptors)))
}

/// Reads the task that follows a [`RUN`].
pub(super) fn receive_task(mut socket: &UnixStream) -> io::Result<Task> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_TASK_BYTES {
        return Err(io::Error::other("the command line is too long"));
    }
    let mut json = Zeroizing::new(vec![0; length as usize]);
    socket.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}
