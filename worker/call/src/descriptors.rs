//! What the standard library cannot do: receive descriptors with a message (unix(7), cmsg(3)), and leave one to another program.
//!
//! The layouts are those of 64-bit Linux, which is all that Kiln's workers run on.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kiln_call::MAX_OUTPUTS;

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
/// Bytes of `struct cmsghdr`.
const HEADER: usize = 16;

#[repr(C)]
struct Piece {
    base: *mut u8,
    length: usize,
}

#[repr(C)]
struct Message {
    name: *mut u8,
    name_length: u32,
    pieces: *mut Piece,
    piece_count: usize,
    control: *mut u64,
    control_length: usize,
    flags: i32,
}

unsafe extern "C" {
    fn recvmsg(socket: i32, message: *mut Message, flags: i32) -> isize;
    fn fcntl(descriptor: i32, command: i32, ...) -> i32;
}

const F_SETFD: i32 = 2;

/// Leaves a connection to the program that this process becomes, and to all that it starts.
pub(crate) fn leave_open(socket: UnixStream) {
    // SAFETY: the descriptor is this process's own, and nothing in memory depends on its flags.
    unsafe { fcntl(socket.as_raw_fd(), F_SETFD, 0) };
    std::mem::forget(socket);
}

/// Receives up to `buffer.len()` bytes, and adds descriptors that came along.
pub(crate) fn receive(socket: &UnixStream, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = [0_u64; (HEADER + 4 * MAX_OUTPUTS).div_ceil(8)];
    let mut piece = Piece { base: buffer.as_mut_ptr(), length: buffer.len() };
    let mut message = Message {
        name: std::ptr::null_mut(),
        name_length: 0,
        pieces: &raw mut piece,
        piece_count: 1,
        control: control.as_mut_ptr(),
        control_length: size_of_val(&control),
        flags: 0,
    };
    // SAFETY: everything that the message points to outlives the call, and the lengths are those of what is pointed to.
    let received = unsafe { recvmsg(socket.as_raw_fd(), &raw mut message, MSG_CMSG_CLOEXEC) };
    let Ok(received) = usize::try_from(received) else { return Err(io::Error::last_os_error()) };
    let control: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(message.control_length).collect();
    let four = |at: usize| control.get(at..at + 4).and_then(|four| four.try_into().ok()).map(i32::from_ne_bytes);
    let length = control.get(..8).and_then(|eight| eight.try_into().ok()).map_or(0, usize::from_ne_bytes);
    if (four(8), four(12)) == (Some(SOL_SOCKET), Some(SCM_RIGHTS)) {
        for at in (HEADER..length.min(control.len())).step_by(4) {
            // SAFETY: the kernel has just created this descriptor for this process, and nothing else knows of it.
            descriptors.extend(four(at).map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }));
        }
    }
    Ok(received)
}
