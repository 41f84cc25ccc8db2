//! What the library inside a process and the reader outside agree on.
//!
//! The log is a file of [`BYTES`] zero bytes. Its first eight bytes count the bytes of entries (native order). The entries follow, each
//! aligned to [`ALIGNMENT`]: four bytes with the length of a path, plus one, and the path. An entry whose length is 0 has not been
//! finished.

/// The directory, in a job's root, with the library and the log.
pub const DIRECTORY: &str = "/kiln/recorder";
/// The library's file.
pub const LIBRARY: &str = "/kiln/recorder/recorder.so";
/// The log's file.
pub const LOG: &str = "/kiln/recorder/log";
/// The file that names libraries which dynamic programs load first (ld.so(8)).
pub const PRELOADED: &str = "/etc/ld.so.preload";

/// Bytes of a log.
pub const BYTES: usize = 8 << 20;
/// Bytes of the counter before the first entry.
pub const COUNTER: usize = 8;
/// What entries are aligned to.
pub const ALIGNMENT: usize = 8;
/// Bytes of an entry's length.
pub const LENGTH: usize = 4;

/// Where the gate is: an address at which neither the kernel nor a loader puts anything that did not ask for it.
pub const GATE: u64 = 0x2f00_0000_0000;
/// Bytes of the gate's page.
pub const GATE_BYTES: u64 = 4096;

/// Bytes that an entry for a path of this length takes.
pub const fn entry(length: usize) -> usize {
    match LENGTH.saturating_add(length).checked_next_multiple_of(ALIGNMENT) {
        Some(bytes) => bytes,
        None => usize::MAX,
    }
}
