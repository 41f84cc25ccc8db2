//! Calls that a process waits with until another thread lets them go on.
//!
//! Source: seccomp_unotify(2).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;

use super::syscalls::own;

const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const IS_VALID: libc::c_ulong = 0x4008_2102;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
/// The listener is woken on the processor of whoever waits for it (Linux 6.6).
const SYNC_WAKE_UP: u64 = 1;

/// Where the calls arrive that a filter does not decide on its own.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    id: u64,
    /// The thread that makes it, as this process sees it.
    pub thread: i32,
    /// The architecture whose numbers it uses (`AUDIT_ARCH_…`).
    pub architecture: u32,
    /// Its number.
    pub number: i32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What a listener hears.
#[derive(Debug, Clone, Copy)]
pub enum Heard {
    /// A call that waits.
    Call(Call),
    /// Nothing: whoever called was killed meanwhile, or the wait was interrupted.
    Nothing,
    /// That nobody is left who could call.
    End,
}

impl Listener {
    /// Sets a filter for this thread and whatever it starts from now on. It must not be able to gain privileges.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn install(program: &[libc::sock_filter]) -> io::Result<Self> {
        let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        // SAFETY: the kernel copies the program, which outlives the call, and does not change it.
        let made = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        let listener = Self(own(made as i32));
        // SAFETY: only numbers are passed. An older kernel refuses, and is merely slower.
        unsafe { libc::ioctl(listener.0.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
        Ok(listener)
    }

    /// Waits for the next call.
    ///
    /// # Errors
    /// If calls can no longer be received.
    pub fn next(&self) -> io::Result<Heard> {
        // Before Linux 6.11 to receive waits for ever once the last process is gone; to poll does not.
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which outlives the call.
        if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
            return Ok(Heard::Nothing);
        }
        if poll.revents & libc::POLLIN == 0 {
            return Ok(Heard::End);
        }
        // SAFETY: all zeroes are a valid structure, and the kernel requires them.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is the kernel's own and outlives the call.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE as _, &raw mut call) } < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINTR) => Ok(Heard::Nothing),
                _ => Err(error),
            };
        }
        let data = call.data;
        Ok(Heard::Call(Call {
            id: call.id,
            thread: call.pid as i32,
            architecture: data.arch,
            number: data.nr,
            arguments: data.args,
        }))
    }

    /// Whether whoever makes a call still waits; otherwise it was killed, and the call is never carried out.
    pub fn is_waiting(&self, call: &Call) -> bool {
        // SAFETY: the kernel reads a number, which outlives the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), IS_VALID as _, &raw const call.id) == 0 }
    }

    /// Lets the kernel carry out a call.
    ///
    /// # Errors
    /// If there will be no more calls.
    pub fn let_go(&self, call: &Call) -> io::Result<()> {
        let answer = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        };
        // SAFETY: the structure is the kernel's own and outlives the call.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), SEND as _, &raw const answer) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOENT) { Ok(()) } else { Err(error) }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
