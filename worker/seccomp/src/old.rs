//! The system call numbers of 32-bit programs on x86-64 (arch/x86/entry/syscalls/syscall_32.tbl).

use super::filter::{Answer, Table};
use super::{ABSENT, Numbers, REFUSED};

pub(super) const ARCHITECTURE: u32 = 0x4000_0003;
/// The highest number that is allowed unless a table below says otherwise: `mseal`, of Linux 6.10.
const LAST: u32 = 462;

/// Refused: the calls that [`super::native`] refuses, and calls that only 32-bit programs have. The family of a socket
/// cannot be seen in the arguments of `socketcall` (102), which programs of the last ten years no longer use.
const DENIED: [u32; 66] = [
    21, 22, 25, 51, 52, 61, 79, 86, 87, 88, 101, 102, 103, 110, 111, 113, 115, 128, 129, 131, 135, 166, 169, 217, 253,
    264, 273, 274, 275, 276, 283, 286, 287, 288, 294, 310, 317, 336, 338, 339, 341, 342, 343, 346, 349, 350, 357, 374,
    404, 405, 425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 440, 442, 443, 447, 448, 450,
];
/// Answered as if the kernel lacked them: `clone3`, whose flags a filter cannot see, and calls that show mounts or
/// security modules.
const NONE: [u32; 6] = [435, 457, 458, 459, 460, 461];

/// `chroot`, which is refused except in a root of its own.
const CHANGE_ROOT: u32 = 61;

/// `in_root`: for a job in a root of its own.
pub(super) fn numbers(in_root: bool) -> Numbers {
    let allowed = (0..=LAST).map(|number| (number, Answer::Allow));
    let more = in_root.then_some((CHANGE_ROOT, Answer::Allow));
    let all =
        allowed.chain(DENIED.map(|number| (number, REFUSED))).chain(NONE.map(|number| (number, ABSENT))).chain(more);
    Numbers {
        table: Table::new(all, ABSENT),
        clone: 120,
        socket: 359,
        socketpair: 360,
        at_init: [(340, 0), (241, 0), (156, 0), (154, 0), (351, 0), (97, 1), (289, 1)],
    }
}
