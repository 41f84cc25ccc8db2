//! The real name of a path: the C library asks about each of its directories, the kernel knows it of an open file.

use core::arch::asm;
use core::ffi::{CStr, c_char, c_void};
use core::mem::MaybeUninit;

use super::files::answer;
use super::gate;
use super::note::{AT_FDCWD, noted};

/// `O_PATH | O_CLOEXEC`.
const PLACE: usize = 0o10_000_000 | 0o2_000_000;
const LONGEST: usize = 4096;
const FILES: &[u8] = b"/proc/self/fd/";
/// How many digits a descriptor has at most, and a zero.
const DIGITS: usize = 11;
const NOT_FOUND: isize = -2;
const NOT_A_DIRECTORY: isize = -20;
const NOT_A_LINK: isize = -22;
const DELETED: &[u8] = b" (deleted)";

type Real = unsafe extern "C" fn(*const c_char, *mut c_char) -> *mut c_char;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
}

// The C library of before 2.34 has it in a library of its own, which a program need not have loaded.
core::arch::global_asm!(".weak dlsym");

/// The C library's own function; none if it cannot be found.
#[cold]
fn own() -> Option<Real> {
    let dlsym: usize;
    // SAFETY: reads the address of a function, which is 0 if there is none.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("mov {}, qword ptr [rip + dlsym@GOTPCREL]", out(reg) dlsym, options(nostack, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("adrp {0}, :got:dlsym", "ldr {0}, [{0}, :got_lo12:dlsym]", out(reg) dlsym, options(nostack, readonly));
    }
    if dlsym == 0 {
        return None;
    }
    const NEXT: isize = -1;
    // SAFETY: it is what dlsym(3) describes, and the name ends with a zero.
    unsafe {
        let dlsym: unsafe extern "C" fn(isize, *const c_char) -> *mut c_void = core::mem::transmute(dlsym);
        let found = dlsym(NEXT, c"realpath".as_ptr());
        if found.is_null() { None } else { Some(core::mem::transmute::<*mut c_void, Real>(found)) }
    }
}

/// Asks the kernel; answers the length without a zero at the end, an error, or 0 if the answer is of no use.
unsafe fn ask(path: *const c_char, buffer: &mut MaybeUninit<[u8; LONGEST]>) -> isize {
    // SAFETY: the caller answers for the path, and the buffer is that long.
    unsafe {
        if !noted(AT_FDCWD, path) {
            return 0;
        }
        let file = gate::through(gate::OPENAT, [AT_FDCWD as usize, path as usize, PLACE, 0, 0]);
        if file < 0 {
            return file;
        }
        let mut link = [0_u8; FILES.len() + DIGITS];
        name(file as u32, &mut link);
        let to = [AT_FDCWD as usize, link.as_ptr() as usize, buffer.as_mut_ptr() as usize, LONGEST, 0];
        let length = gate::through(gate::READLINKAT, to);
        gate::plain(gate::CLOSE, [file as usize, 0, 0, 0, 0, 0]);
        let found = core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length.max(0) as usize);
        let is_name = found.first() == Some(&b'/') && found.len() < LONGEST && !found.ends_with(DELETED);
        if is_name { length } else { 0 }
    }
}

/// Writes how far a path leads at whose end nothing is, as the C library does; `false` if that takes more than to look at its
/// directories one after another.
unsafe fn fails(path: *const c_char, resolved: *mut c_char) -> bool {
    // SAFETY: the caller answers for the path, and for a buffer of `PATH_MAX` bytes.
    unsafe {
        let path = CStr::from_ptr(path).to_bytes();
        if path.len() >= LONGEST || path.first() != Some(&b'/') {
            return false;
        }
        let mut place = MaybeUninit::<[u8; 8]>::uninit();
        for (at, byte) in path.iter().enumerate().skip(1).chain([(path.len(), &b'/')]) {
            if *byte != b'/' {
                continue;
            }
            let so_far = path.get(..at).unwrap_or_default();
            if so_far.ends_with(b"/") || so_far.ends_with(b"/.") || so_far.ends_with(b"/..") {
                return false;
            }
            core::ptr::copy_nonoverlapping(so_far.as_ptr(), resolved.cast(), at);
            *resolved.add(at) = 0;
            let to = [AT_FDCWD as usize, resolved as usize, place.as_mut_ptr() as usize, size_of_val(&place), 0];
            match gate::through(gate::READLINKAT, to) {
                NOT_A_LINK => {}
                NOT_FOUND => return true,
                _ => return false,
            }
        }
    }
    false
}

/// Writes the name of a descriptor's link.
fn name(file: u32, link: &mut [u8; FILES.len() + DIGITS]) {
    let (mut digits, mut left, mut count) = ([0_u8; DIGITS], file, 0);
    for digit in &mut digits {
        *digit = b'0' + (left % 10) as u8;
        (left, count) = (left / 10, count + 1);
        if left == 0 {
            break;
        }
    }
    let all = FILES.iter().chain(digits[..count].iter().rev());
    link.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realpath(path: *const c_char, resolved: *mut c_char) -> *mut c_char {
    let mut buffer = MaybeUninit::uninit();
    // SAFETY: the caller answers for the path; what is copied fits into what is allocated, or `PATH_MAX`.
    unsafe {
        let is_empty = path.is_null() || CStr::from_ptr(path).is_empty();
        let found = if is_empty { 0 } else { ask(path, &mut buffer) };
        if found <= 0 {
            // The C library says how far it came, if there is room for that, and if something is missing.
            let is_known = match found {
                NOT_FOUND => resolved.is_null() || fails(path, resolved),
                NOT_A_DIRECTORY => true,
                _ => false,
            };
            let own = if is_known { None } else { own() };
            return match own {
                Some(own) => own(path, resolved),
                None => {
                    answer(if found < 0 { found } else { NOT_FOUND });
                    core::ptr::null_mut()
                }
            };
        }
        let to = if resolved.is_null() { malloc(found as usize + 1).cast() } else { resolved };
        if !to.is_null() {
            core::ptr::copy_nonoverlapping(buffer.as_ptr().cast(), to, found as usize);
            *to.add(found as usize) = 0;
        }
        to
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __realpath_chk(path: *const c_char, resolved: *mut c_char, _: usize) -> *mut c_char {
    // SAFETY: the caller answers for the path.
    unsafe { realpath(path, resolved) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
    // SAFETY: the caller answers for the path.
    unsafe { realpath(path, core::ptr::null_mut()) }
}
