//! Writes paths down.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::gate;
use crate::layout::{BYTES, COUNTER, LENGTH, LOG, entry};

/// `PATH_MAX`.
const LONGEST: usize = 4096;
pub(super) const AT_FDCWD: i32 = -100;
const READ_WRITE: usize = 2;
const CLOSE_ON_EXEC: usize = 0o2_000_000;
/// Number of paths that are remembered as written.
const REMEMBERED: usize = 4096;

/// The log, once it is mapped.
static MAPPED: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// What this process has written: most paths are looked at again and again. Each place has the hash of the last path that fell to it.
static WRITTEN: [AtomicU64; REMEMBERED] = [const { AtomicU64::new(0) }; REMEMBERED];

/// Maps the log. From then on calls go through the gate.
pub(super) fn open() {
    let mut path = [0_u8; LOG.len() + 1];
    path[..LOG.len()].copy_from_slice(LOG.as_bytes());
    // SAFETY: the path ends with a zero; the mapping is new memory, and stays.
    unsafe {
        let flags = READ_WRITE | CLOSE_ON_EXEC;
        let file = gate::through(gate::OPENAT, [AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0]);
        if file < 0 {
            return;
        }
        let (readable_writable, shared) = (3, 1);
        let mapped = gate::plain(gate::MMAP, [0, BYTES, readable_writable, shared, file as usize, 0]);
        gate::plain(gate::CLOSE, [file as usize, 0, 0, 0, 0, 0]);
        if mapped > 0 {
            MAPPED.store(mapped as *mut u8, Ordering::Release);
        }
    }
}

/// Whether the path of a call is written down, or there is nothing to write.
///
/// # Safety
/// It is a string, or null.
pub(super) unsafe fn noted(directory: i32, path: *const c_char) -> bool {
    let log = MAPPED.load(Ordering::Acquire);
    if log.is_null() || path.is_null() {
        return false;
    }
    // SAFETY: the caller says so.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    match path {
        // Something that is open, and was written down then; or nothing at all.
        [] => true,
        _ if path.len() >= LONGEST => false,
        [b'/', ..] => note(log, &[], path),
        _ if directory != AT_FDCWD => false,
        _ => {
            let mut buffer = [const { core::mem::MaybeUninit::<u8>::uninit() }; LONGEST];
            let at = buffer.as_mut_ptr();
            // SAFETY: the kernel writes at most so many bytes, and answers how many, with the zero at their end.
            let length = unsafe { gate::plain(gate::GETCWD, [at as usize, LONGEST, 0, 0, 0, 0]) };
            // A directory that cannot be reached has a name that does not begin with a slash.
            if length < 2 {
                return false;
            }
            // SAFETY: so many bytes were written.
            let base = unsafe { core::slice::from_raw_parts(at.cast::<u8>(), length as usize - 1) };
            if base.first() == Some(&b'/') { note(log, base, path) } else { false }
        }
    }
}

fn note(log: *mut u8, base: &[u8], path: &[u8]) -> bool {
    let parts = [base, if base.is_empty() { &[] } else { b"/" }, path];
    let hash = hash(parts);
    let Some(place) = WRITTEN.get(hash as usize % REMEMBERED) else { return false };
    if place.load(Ordering::Acquire) == hash {
        return true;
    }
    let is_written = write(log, parts);
    if is_written {
        place.store(hash, Ordering::Release);
    }
    is_written
}

/// A hash that no two paths of a compiler share by chance, and never 0.
fn hash(parts: [&[u8]; 3]) -> u64 {
    let (mut low, mut high) = (0xcbf2_9ce4_8422_2325_u64, 0x9e37_79b9_7f4a_7c15_u64);
    for byte in parts.into_iter().flatten() {
        low = (low ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        high = (high.rotate_left(9) ^ u64::from(*byte)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    (low ^ high.rotate_left(32)) | 1 << 63
}

fn write(log: *mut u8, parts: [&[u8]; 3]) -> bool {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    // SAFETY: the mapping is that long, aligned, and only ever changed by atomic operations and in places that were reserved.
    unsafe {
        let used = &*log.cast::<AtomicU64>();
        let at = used.fetch_add(entry(length) as u64, Ordering::Relaxed);
        let room = (BYTES - COUNTER) as u64;
        if at.checked_add(entry(length) as u64).is_none_or(|end| end > room) {
            return false;
        }
        let begins = log.add(COUNTER + at as usize);
        let mut to = begins.add(LENGTH);
        for part in parts {
            core::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
            to = to.add(part.len());
        }
        (*begins.cast::<AtomicU32>()).store(length as u32 + 1, Ordering::Release);
    }
    true
}
