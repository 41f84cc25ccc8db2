//! The calls that look at paths, and a filter that hands them to a listener.

use kiln_recorder::layout::{GATE, GATE_BYTES};
use nix::libc;
use seccompiler::sock_filter;

use super::filter::{self, Answer, Half, Table};
use super::native;

/// Where a call has its path.
#[derive(Debug, Clone, Copy)]
pub struct Paths {
    /// The argument with the directory that a relative path begins at; none: the working directory.
    pub directory: Option<usize>,
    /// The argument with the path's address.
    pub path: usize,
    /// Whether it lists the directory that its first argument is.
    pub lists: bool,
}

const AT: Paths = Paths { directory: Some(0), path: 1, lists: false };
const PLAIN: Paths = Paths { directory: None, path: 0, lists: false };
const LISTS: Paths = Paths { directory: None, path: 0, lists: true };

/// Where a call has its path; none if it looks at none.
pub fn paths(number: libc::c_long) -> Option<Paths> {
    CALLS.iter().position(|(known, _)| *known == number).map(|at| match CALLS[at].1 {
        Kind::At => AT,
        Kind::Plain => PLAIN,
        Kind::Lists => LISTS,
    })
}

/// Lets calls from the gate pass: their paths have been written down.
fn unless_from_gate() -> Vec<sock_filter> {
    let (high, low) = ((GATE >> 32) as u32, GATE as u32);
    let mut within = vec![filter::load_pointer(Half::Low)];
    within.extend(filter::where_at_least(low + GATE_BYTES as u32, vec![filter::answer(Answer::Notify)]));
    within.extend(filter::where_at_least(low, vec![filter::answer(Answer::Allow)]));
    within.push(filter::answer(Answer::Notify));
    let mut block = vec![filter::load_pointer(Half::High)];
    block.extend(filter::where_equal(high, within));
    block.push(filter::answer(Answer::Notify));
    block
}

#[derive(Clone, Copy)]
enum Kind {
    At,
    Plain,
    Lists,
}

#[cfg(target_arch = "x86_64")]
const CALLS: &[(libc::c_long, Kind)] = &[
    (libc::SYS_open, Kind::Plain),
    (libc::SYS_creat, Kind::Plain),
    (libc::SYS_stat, Kind::Plain),
    (libc::SYS_lstat, Kind::Plain),
    (libc::SYS_access, Kind::Plain),
    (libc::SYS_readlink, Kind::Plain),
    (libc::SYS_getdents, Kind::Lists),
    (libc::SYS_execve, Kind::Plain),
    (libc::SYS_openat, Kind::At),
    (libc::SYS_openat2, Kind::At),
    (libc::SYS_newfstatat, Kind::At),
    (libc::SYS_statx, Kind::At),
    (libc::SYS_faccessat, Kind::At),
    (libc::SYS_faccessat2, Kind::At),
    (libc::SYS_readlinkat, Kind::At),
    (libc::SYS_execveat, Kind::At),
    (libc::SYS_getdents64, Kind::Lists),
];

#[cfg(target_arch = "aarch64")]
const CALLS: &[(libc::c_long, Kind)] = &[
    (libc::SYS_execve, Kind::Plain),
    (libc::SYS_openat, Kind::At),
    (libc::SYS_openat2, Kind::At),
    (libc::SYS_newfstatat, Kind::At),
    (libc::SYS_statx, Kind::At),
    (libc::SYS_faccessat, Kind::At),
    (libc::SYS_faccessat2, Kind::At),
    (libc::SYS_readlinkat, Kind::At),
    (libc::SYS_execveat, Kind::At),
    (libc::SYS_getdents64, Kind::Lists),
];

/// The filter: those calls, unless they are made from the gate of the recorder in the process, and all calls of another architecture, wait
/// for the listener.
pub fn of_paths() -> Vec<libc::sock_filter> {
    let answers = CALLS.iter().map(|(number, _)| (*number as u32, Answer::Notify));
    // Calls that look at no path are told apart by their numbers alone, which the kernel does beforehand.
    let mut own = vec![filter::load_number()];
    own.extend(Table::new(answers, Answer::Allow).program_with(Answer::Notify, &unless_from_gate()));
    let mut program = vec![filter::load_architecture()];
    program.extend(filter::where_equal(native::ARCHITECTURE, own));
    program.push(filter::answer(Answer::Notify));
    program.iter().map(|op| libc::sock_filter { code: op.code, jt: op.jt, jf: op.jf, k: op.k }).collect()
}
