//! The system calls that a build may make. All others, including those of future kernels, are refused.
//!
//! Invariant: calls that are not listed fail with `ENOSYS`, as on a kernel that lacks them, so that libraries use their
//! fallbacks; calls that are refused explicitly fail with `EPERM`. On a processor that also runs 32-bit programs, the
//! same calls are refused under their other numbers.

mod filter;
mod native;
#[cfg(target_arch = "x86_64")]
mod old;
mod paths;

use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope};
use nix::libc;
use seccompiler::{BpfProgram, sock_filter};

use kiln_kernel::syscalls;

use filter::{Answer, Table};
pub use native::ARCHITECTURE;
pub use paths::{Paths, of_paths, paths};

/// `CLONE_NEWNS`, `CLONE_NEWCGROUP`, `CLONE_NEWUTS`, `CLONE_NEWIPC`, `CLONE_NEWUSER`, `CLONE_NEWPID`, `CLONE_NEWNET`.
const NAMESPACES: u32 = 0x7e02_0000;
/// Socket protocols that are allowed: the default, the usual ones, and multipath TCP if it cannot bypass a filter on
/// TCP.
const PROTOCOLS: [u32; 5] =
    [0, libc::IPPROTO_ICMP as u32, libc::IPPROTO_TCP as u32, libc::IPPROTO_UDP as u32, libc::IPPROTO_ICMPV6 as u32];
const REFUSED: Answer = Answer::Error(libc::EPERM as u32);
const ABSENT: Answer = Answer::Error(libc::ENOSYS as u32);
const NO_PROTOCOL: Answer = Answer::Error(libc::EPROTONOSUPPORT as u32);

/// The call numbers of one kind of program.
struct Numbers {
    table: Table,
    clone: u32,
    socket: u32,
    socketpair: u32,
    /// Calls refused if the given argument names the init: it runs as the action's user, so the kernel would allow
    /// them.
    at_init: [(u32, u32); 7],
}

/// Restricts this thread and everything it starts. `shares_network`: whether it uses the machine's network.
///
/// # Errors
/// If the kernel refuses the filter, in words.
pub fn restrict(shares_network: bool) -> Result<(), String> {
    // Abstract sockets belong to a network namespace, so here they would be the machine's. Linux 6.12 and later can
    // keep them apart; on older kernels an action with network access may only create Unix socket pairs.
    let refuse_unix = shares_network && !scope_abstract_sockets();
    let program = program(Kind { shares_network, refuse_unix, in_root: false });
    seccompiler::apply_filter(&program).map_err(|error| format!("cannot set the filter of system calls: {error}"))
}

/// The filter of a job in a root of its own.
#[derive(Debug)]
pub struct OfRoot(BpfProgram);

/// Restricts this thread and everything it starts to abstract sockets of its own, if that is needed, and makes its filter. Like
/// [`restrict`], but programs may change their root and, by their set-user-id bits, their user.
pub fn of_root(shares_network: bool) -> OfRoot {
    let refuse_unix = shares_network && !scope_abstract_sockets();
    OfRoot(program(Kind { shares_network, refuse_unix, in_root: true }))
}

impl OfRoot {
    /// Sets the filter for this thread, which must have `CAP_SYS_ADMIN` in its user namespace.
    ///
    /// # Errors
    /// If the kernel refuses it, in words.
    pub fn install(&self) -> Result<(), String> {
        let program: Vec<libc::sock_filter> =
            self.0.iter().map(|op| libc::sock_filter { code: op.code, jt: op.jt, jf: op.jf, k: op.k }).collect();
        syscalls::filter_calls(&program).map_err(|error| format!("cannot set the filter of system calls: {error}"))
    }
}

/// What a filter is for.
#[derive(Debug, Clone, Copy)]
struct Kind {
    shares_network: bool,
    refuse_unix: bool,
    in_root: bool,
}

/// Restricts this thread to abstract sockets that were created in its sandbox; `false` if the kernel cannot do that.
fn scope_abstract_sockets() -> bool {
    let scoped = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::AbstractUnixSocket)
        .and_then(Ruleset::create)
        // Whoever calls this has given up privileges already, or must not.
        .and_then(|ruleset| ruleset.no_new_privs(false).restrict_self());
    scoped.is_ok()
}

fn program(kind: Kind) -> BpfProgram {
    let own = numbers(&native::numbers(kind.in_root), kind);
    let mut program = vec![filter::load_architecture()];
    #[cfg(target_arch = "x86_64")]
    {
        let old = numbers(&old::numbers(kind.in_root), kind);
        program.extend(filter::where_equal(old::ARCHITECTURE, old));
        // x86-64 has a third set of numbers, its own with one bit set (x32); they are in no table, so all are refused.
    }
    program.extend(filter::where_equal(native::ARCHITECTURE, own));
    program.push(filter::answer(ABSENT));
    program
}

fn numbers(numbers: &Numbers, kind: Kind) -> Vec<sock_filter> {
    let Kind { shares_network, refuse_unix, .. } = kind;
    let mut program = vec![filter::load_number()];
    program.extend(filter::where_equal(numbers.clone, clone()));
    program.extend(filter::where_equal(numbers.socket, socket(shares_network, refuse_unix)));
    program.extend(filter::where_equal(numbers.socketpair, pair()));
    for (number, argument) in numbers.at_init {
        let mut block = vec![filter::load_argument(argument)];
        block.extend(filter::where_equal(1, vec![filter::answer(REFUSED)]));
        block.push(filter::answer(Answer::Allow));
        program.extend(filter::where_equal(number, block));
    }
    program.extend(numbers.table.program());
    program
}

/// Refuses new namespaces: in its own user namespace an action would have every capability.
fn clone() -> Vec<sock_filter> {
    let mut block = vec![filter::load_argument(0)];
    block.extend(filter::where_any_bit(NAMESPACES, vec![filter::answer(REFUSED)]));
    block.push(filter::answer(Answer::Allow));
    block
}

/// Decides by family and protocol. Sockets between a virtual machine and its host ignore network namespaces, and
/// protocols such as UDP-Lite would bypass the filter that blocks addresses.
fn socket(shares_network: bool, refuse_unix: bool) -> Vec<sock_filter> {
    let unix = vec![filter::answer(if refuse_unix { REFUSED } else { Answer::Allow })];
    let mut netlink = vec![filter::load_argument(2)];
    netlink.extend(filter::where_equal(libc::NETLINK_ROUTE as u32, vec![filter::answer(Answer::Allow)]));
    netlink.push(filter::answer(NO_PROTOCOL));
    let mut internet = vec![filter::load_argument(2)];
    for protocol in PROTOCOLS.into_iter().chain((!shares_network).then_some(libc::IPPROTO_MPTCP as u32)) {
        internet.extend(filter::where_equal(protocol, vec![filter::answer(Answer::Allow)]));
    }
    internet.push(filter::answer(NO_PROTOCOL));
    let mut block = vec![filter::load_argument(0)];
    block.extend(filter::where_equal(libc::AF_UNIX as u32, unix));
    block.extend(filter::where_equal(libc::AF_NETLINK as u32, netlink));
    block.extend(filter::where_equal(libc::AF_INET as u32, internet.clone()));
    block.extend(filter::where_equal(libc::AF_INET6 as u32, internet));
    block.push(filter::answer(REFUSED));
    block
}

fn pair() -> Vec<sock_filter> {
    let mut block = vec![filter::load_argument(0)];
    block.extend(filter::where_equal(libc::AF_UNIX as u32, vec![filter::answer(Answer::Allow)]));
    block.push(filter::answer(REFUSED));
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers to a call of this processor's own numbers, by interpreting it.
    fn answer(number: u32, arguments: [u32; 3], shares_network: bool) -> u32 {
        interpreted(program(Kind { shares_network, refuse_unix: false, in_root: false }), number, arguments)
    }

    fn interpreted(program: BpfProgram, number: u32, arguments: [u32; 3]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let op = &program[at];
            at += 1;
            match op.code {
                0x20 => {
                    loaded = match op.k {
                        0 => number,
                        4 => native::ARCHITECTURE,
                        offset => arguments[(offset as usize - 16) / 8],
                    }
                }
                0x15 => at += usize::from(if loaded == op.k { op.jt } else { op.jf }),
                0x35 => at += usize::from(if loaded >= op.k { op.jt } else { op.jf }),
                0x45 => at += usize::from(if loaded & op.k != 0 { op.jt } else { op.jf }),
                0x05 => at += op.k as usize,
                0x06 => return op.k,
                other => panic!("instruction {other:x}"),
            }
        }
    }

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

    fn error(code: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | code as u32
    }

    #[test]
    fn what_builds_need_is_allowed_and_what_no_list_names_is_absent() {
        let plain = |number: libc::c_long| answer(number as u32, [0; 3], false);
        for number in
            [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_futex, libc::SYS_statx, libc::SYS_rseq]
        {
            assert_eq!(plain(number), ALLOWED, "call {number}");
        }
        for number in [libc::SYS_mount, libc::SYS_bpf, libc::SYS_keyctl, libc::SYS_unshare, libc::SYS_io_uring_setup] {
            assert_eq!(plain(number), error(libc::EPERM), "call {number}");
        }
        assert_eq!(plain(libc::SYS_clone3), error(libc::ENOSYS));
        for number in (463..4096).chain([0x4000_0000, 0x4000_0027, u32::MAX]) {
            assert_eq!(answer(number, [0; 3], false), error(libc::ENOSYS), "call {number}");
        }
    }

    #[test]
    fn in_a_root_programs_may_change_their_root_and_nothing_else_more() {
        let answers = |in_root| {
            let kind = Kind { shares_network: false, refuse_unix: false, in_root };
            let all = (0..=470).map(move |number| interpreted(program(kind), number, [0; 3]));
            all.collect::<Vec<_>>()
        };
        let (plain, root) = (answers(false), answers(true));
        let differ: Vec<i64> = (0..=470).filter(|at| plain[*at as usize] != root[*at as usize]).collect();
        assert_eq!(differ, [libc::SYS_chroot]);
        assert_eq!(root[libc::SYS_chroot as usize], ALLOWED);
    }

    #[test]
    fn arguments_decide_about_sockets_namespaces_and_the_init() {
        let socket = |family: i32, protocol: i32, shares| {
            answer(libc::SYS_socket as u32, [family as u32, 1, protocol as u32], shares)
        };
        assert_eq!(socket(libc::AF_INET, 0, true), ALLOWED);
        assert_eq!(socket(libc::AF_INET6, libc::IPPROTO_UDP, true), ALLOWED);
        assert_eq!(socket(libc::AF_INET, libc::IPPROTO_UDPLITE, false), error(libc::EPROTONOSUPPORT));
        assert_eq!(socket(libc::AF_INET, libc::IPPROTO_MPTCP, true), error(libc::EPROTONOSUPPORT));
        assert_eq!(socket(libc::AF_INET, libc::IPPROTO_MPTCP, false), ALLOWED);
        assert_eq!(socket(libc::AF_NETLINK, libc::NETLINK_ROUTE, true), ALLOWED);
        assert_eq!(socket(libc::AF_NETLINK, libc::NETLINK_AUDIT, true), error(libc::EPROTONOSUPPORT));
        for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET, libc::AF_KEY] {
            assert_eq!(socket(family, 0, false), error(libc::EPERM));
        }
        let clone = |flags: i32| answer(libc::SYS_clone as u32, [flags as u32, 0, 0], false);
        assert_eq!(clone(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD), ALLOWED);
        assert_eq!(clone(libc::CLONE_NEWUSER | libc::SIGCHLD), error(libc::EPERM));
        let limit = |pid| answer(libc::SYS_prlimit64 as u32, [pid, 0, 0], false);
        assert_eq!((limit(0), limit(1)), (ALLOWED, error(libc::EPERM)));
    }
}
