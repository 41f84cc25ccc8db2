//! The C library's functions that look at paths. Each makes the system call that the C library's own makes.

use core::ffi::{c_char, c_int, c_uint, c_void};

use super::gate;
use super::note::{AT_FDCWD, noted};

const NO_FOLLOW: c_int = 0x100;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// Makes a call whose path is `path`, and answers as the C library does.
///
/// # Safety
/// The arguments are what the call expects.
pub(super) unsafe fn call(number: usize, directory: c_int, path: *const c_char, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the caller of the C library's function answers for what it passes.
    let result = unsafe {
        if noted(directory, path) { gate::through(number, arguments) } else { gate::plain(number, [a, b, c, d, e, 0]) }
    };
    // SAFETY: as above.
    unsafe { answer(result) }
}

/// The result of a system call as a C function's.
///
/// # Safety
/// The C library is there.
pub(super) unsafe fn answer(result: isize) -> isize {
    if (-4095..0).contains(&result) {
        // SAFETY: the C library's own variable of this thread.
        unsafe { *__errno_location() = -result as c_int };
        return -1;
    }
    result
}

/// Functions that open.
macro_rules! opens {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
            // SAFETY: the caller answers for the path. The mode is passed in the same register whether or not it is named.
            unsafe { openat(AT_FDCWD, path, flags, mode) }
        }
    )*};
}
opens!(open open64);

/// The same, as a compiler's checks of the C library call them, without a mode.
macro_rules! opens_checked {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(path: *const c_char, flags: c_int) -> c_int {
            // SAFETY: the caller answers for the path.
            unsafe { openat(AT_FDCWD, path, flags, 0) }
        }
    )*};
}
opens_checked!(__open_2 __open64_2);

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let arguments = [directory as usize, path as usize, flags as usize, mode as usize, 0];
    // SAFETY: the caller answers for the path.
    unsafe { call(gate::OPENAT, directory, path, arguments) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller answers for the path.
    unsafe { openat(directory, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: the caller answers for the path.
    unsafe { call(gate::FACCESSAT, AT_FDCWD, path, [AT_FDCWD as usize, path as usize, mode as usize, 0, 0]) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize {
    // SAFETY: the caller answers for the path and the buffer.
    unsafe { call(gate::READLINKAT, AT_FDCWD, path, [AT_FDCWD as usize, path as usize, buffer as usize, size, 0]) }
}

/// The kernel's structure is the C library's on 64-bit machines.
unsafe fn status(directory: c_int, path: *const c_char, buffer: *mut c_void, flags: c_int) -> c_int {
    let arguments = [directory as usize, path as usize, buffer as usize, flags as usize, 0];
    // SAFETY: the caller answers for the path and the buffer.
    unsafe { call(gate::NEWFSTATAT, directory, path, arguments) as c_int }
}

macro_rules! status_of_paths {
    ($($name:ident $flags:expr)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(path: *const c_char, buffer: *mut c_void) -> c_int {
            // SAFETY: the caller answers for the path and the buffer.
            unsafe { status(AT_FDCWD, path, buffer, $flags) }
        }
    )*};
}
status_of_paths!(stat 0 stat64 0 lstat NO_FOLLOW lstat64 NO_FOLLOW);

/// The names that programs of C libraries before 2.33 call; the version of the structure is the only one of 64-bit machines.
macro_rules! status_of_old {
    ($($name:ident $flags:expr)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(_: c_int, path: *const c_char, buffer: *mut c_void) -> c_int {
            // SAFETY: the caller answers for the path and the buffer.
            unsafe { status(AT_FDCWD, path, buffer, $flags) }
        }
    )*};
}
status_of_old!(__xstat 0 __xstat64 0 __lxstat NO_FOLLOW __lxstat64 NO_FOLLOW);

macro_rules! status_at {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(directory: c_int, path: *const c_char, buffer: *mut c_void, flags: c_int) -> c_int {
            // SAFETY: the caller answers for the path and the buffer.
            unsafe { status(directory, path, buffer, flags) }
        }
    )*};
}
status_at!(fstatat fstatat64);

/// No paths, but the C library makes a call of these that could have one.
macro_rules! status_of_open {
    ($($name:ident($($version:ident)?))*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($version: c_int,)? file: c_int, buffer: *mut c_void) -> c_int {
            $(let _ = $version;)?
            // SAFETY: the caller answers for the buffer.
            unsafe { answer(gate::plain(gate::FSTAT, [file as usize, buffer as usize, 0, 0, 0, 0])) as c_int }
        }
    )*};
}
status_of_open!(fstat() fstat64() __fxstat(version) __fxstat64(version));

#[unsafe(no_mangle)]
unsafe extern "C" fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    buffer: *mut c_void,
) -> c_int {
    let arguments = [directory as usize, path as usize, flags as usize, mask as usize, buffer as usize];
    // SAFETY: the caller answers for the path and the buffer.
    unsafe { call(gate::STATX, directory, path, arguments) as c_int }
}
