//! What the worker and the init of a container say to each other, over one Unix socket.
//!
//! The worker sends a tag byte. With [`RUN`] come two descriptors, standard output and error, then the task as a length and JSON;
//! [`STOP`] stands alone. The init answers with a line of JSON for each [`Report`].

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use kiln_executor::Secrets;
use kiln_executor::ending::Ended;
use kiln_kernel::syscalls;

/// A task follows.
pub(super) const RUN: u8 = b'R';
/// Everything of the running task is to be stopped.
pub(super) const STOP: u8 = b'S';
/// Longest task: arguments and variables have the kernel's own limit below this.
const MAX_TASK_BYTES: u32 = 64 << 20;

/// One command for the init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) arguments: Vec<String>,
    /// Over those of the image.
    pub(super) environment: BTreeMap<String, String>,
    pub(super) secrets: Secrets,
    pub(super) working_directory: String,
    pub(super) make_directories: Vec<String>,
    /// The container has a network of its own, with nobody else's sockets in it.
    pub(super) private_network: bool,
}

/// What the init says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It waits for tasks.
    Ready,
    /// The command runs.
    Started,
    /// The command could not be started, and it is not the command's fault.
    Setup(String),
    /// The command and all that it started is gone. `clean`: nothing else of it is left either.
    Ended { ended: Ended, clean: bool },
}

/// Tag and descriptors of a task, in one call that does not block.
pub(super) fn send_tag(socket: BorrowedFd<'_>, output: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let descriptors: [RawFd; 2] = output.map(|descriptor| descriptor.as_raw_fd());
    let control = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&[RUN])], &control, flags, None)?;
    Ok(())
}

/// The task's own bytes.
pub(super) fn encode(task: &Task) -> io::Result<Zeroizing<Vec<u8>>> {
    let json = Zeroizing::new(serde_json::to_vec(task)?);
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_TASK_BYTES);
    let length = length.ok_or_else(|| io::Error::other("the command is too long"))?;
    Ok(Zeroizing::new([&length.to_be_bytes()[..], &json].concat()))
}

/// Waits for a tag; `None` where the worker is gone.
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
        return Err(io::Error::other("the command is too long"));
    }
    let mut json = Zeroizing::new(vec![0; length as usize]);
    socket.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}
