//! System calls, and the one place in memory from which those are made that have been written down.

use core::arch::asm;

use crate::layout::{GATE, GATE_BYTES};

pub(super) use numbers::*;

const READ_WRITE: usize = 3;
const READ_EXECUTE: usize = 5;
/// `MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE`.
const NEW_PAGE: usize = 0x02 | 0x20 | 0x10_0000;

#[cfg(target_arch = "x86_64")]
mod numbers {
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const FSTAT: usize = 5;
    pub(crate) const NEWFSTATAT: usize = 262;
    pub(crate) const STATX: usize = 332;
    pub(crate) const FACCESSAT: usize = 269;
    pub(crate) const READLINKAT: usize = 267;
    pub(crate) const GETCWD: usize = 79;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const MPROTECT: usize = 10;
    pub(crate) const EXIT_GROUP: usize = 231;
    /// `syscall; ret`.
    pub(super) const CODE: [u8; 3] = [0x0f, 0x05, 0xc3];
}

#[cfg(target_arch = "aarch64")]
mod numbers {
    pub(crate) const OPENAT: usize = 56;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const FSTAT: usize = 80;
    pub(crate) const NEWFSTATAT: usize = 79;
    pub(crate) const STATX: usize = 291;
    pub(crate) const FACCESSAT: usize = 48;
    pub(crate) const READLINKAT: usize = 78;
    pub(crate) const GETCWD: usize = 17;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const MPROTECT: usize = 226;
    pub(crate) const EXIT_GROUP: usize = 94;
    /// `svc #0; ret`.
    pub(super) const CODE: [u8; 8] = [0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6];
}

/// Puts the gate in place, unless something is there already.
pub(super) fn open() -> bool {
    let page = GATE_BYTES as usize;
    // SAFETY: the kernel maps a page where there is none; it is written to before it becomes code, and never again.
    unsafe {
        if plain(MMAP, [GATE as usize, page, READ_WRITE, NEW_PAGE, usize::MAX, 0]) != GATE as isize {
            return false;
        }
        core::ptr::copy_nonoverlapping(numbers::CODE.as_ptr(), GATE as *mut u8, numbers::CODE.len());
        #[cfg(target_arch = "aarch64")]
        asm!("dc cvau, {at}", "dsb ish", "ic ivau, {at}", "dsb ish", "isb", at = in(reg) GATE);
        plain(MPROTECT, [GATE as usize, page, READ_EXECUTE, 0, 0, 0]) == 0
    }
}

/// Makes a call that the supervisor may see.
///
/// # Safety
/// The arguments are what this call expects.
pub(super) unsafe fn plain(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the caller answers for the arguments; the clobbered registers are named.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
             in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
             in("x5") f, options(nostack));
    }
    result
}

/// Makes a call from the gate. What it looks at has been written down.
///
/// # Safety
/// As [`plain`], and the gate is in place.
pub(super) unsafe fn through(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result;
    // SAFETY: the code at the gate makes the call and returns; the caller answers for the arguments.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("call {gate}", gate = in(reg) GATE, inout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, out("rcx") _, out("r11") _);
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("blr {gate}", gate = in(reg) GATE, in("x8") number, inout("x0") a => result, in("x1") b, in("x2") c,
             in("x3") d, in("x4") e, out("x30") _);
    }
    result
}
