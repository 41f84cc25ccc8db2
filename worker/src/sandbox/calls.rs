//! System calls that no build needs and that have led out of many a sandbox: refused, whatever rights the kernel would ask for.
//!
//! Invariant: what is refused fails with `EPERM`, as in Docker's default profile, so that programs that can do without go on.
//! A processor that also takes the calls of 32-bit programs refuses the same ones by their other numbers.

use std::collections::BTreeMap;

use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// By the numbers of this processor.
const REFUSED: [libc::c_long; 37] = [
    // Programs, counters and queues inside the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Keyrings know no namespaces: the worker's session keyring would be the action's.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    // The machine as a whole.
    libc::SYS_syslog,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_vhangup,
];

/// Refused where they mean the init, by which argument: it has the action's user, and so the kernel would allow it.
const AT_INIT: [(libc::c_long, u8); 7] = [
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];

/// The same by the numbers of 32-bit programs on x86-64 (arch/x86/entry/syscalls/syscall_32.tbl).
#[cfg(target_arch = "x86_64")]
const REFUSED_32: [u32; 43] = [
    357, 336, 374, 425, 426, 427, 288, 286, 287, 21, 22, 52, 217, 428, 429, 430, 431, 432, 433, 442, 346, 61, 342, 103,
    283, 128, 350, 129, 87, 115, 88, 51, 131, 443, 79, 264, 404, 25, 111, 110, 101, 253, 169,
];

#[cfg(target_arch = "x86_64")]
const AT_INIT_32: [(u32, u8); 7] = [(340, 0), (241, 0), (156, 0), (154, 0), (351, 0), (97, 1), (289, 1)];

/// Restricts this thread and all that it starts. `shares_network`: its network is the machine's.
pub(super) fn restrict(shares_network: bool) -> Result<(), String> {
    // Abstract sockets belong to the network, and so would be the machine's: a kernel from 6.12 on can keep them apart, and
    // elsewhere an action with the network has no sockets of this family but pairs.
    let refuse_unix = shares_network && !scope_abstract_sockets();
    let program = program(refuse_unix).map_err(|error| format!("cannot make the filter of system calls: {error}"))?;
    seccompiler::apply_filter(&program).map_err(|error| format!("cannot set the filter of system calls: {error}"))
}

/// Whether this thread is now kept from abstract sockets that were not made in its sandbox.
fn scope_abstract_sockets() -> bool {
    let scoped = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::AbstractUnixSocket)
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    scoped.is_ok()
}

fn program(refuse_unix: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let equal = |argument, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(vec![condition])?])
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    for (number, argument) in AT_INIT {
        rules.insert(number, equal(argument, 1)?);
    }
    // Of any of them, the first argument is the family. What is between a virtual machine and its host knows no network namespaces.
    let mut families = equal(0, libc::AF_VSOCK as u64)?;
    if refuse_unix {
        families.extend(equal(0, libc::AF_UNIX as u64)?);
    }
    rules.insert(libc::SYS_socket, families);
    let refusal = SeccompAction::Errno(libc::EPERM as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let own: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch)?.try_into()?;
    Ok(other_numbers(refuse_unix).into_iter().chain(own).collect())
}

/// What comes before the filter of this processor's own numbers, which ends every program that uses others.
#[cfg(target_arch = "x86_64")]
fn other_numbers(refuse_unix: bool) -> BpfProgram {
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    const X32: u32 = 0x4000_0000;
    const SOCKET_32: u32 = 359;
    const SOCKETCALL: u32 = 102;
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const AT_LEAST: u16 = 0x35;
    const JUMP: u16 = 0x05;
    const RETURN: u16 = 0x06;
    let op = |code: u16, jt: u8, jf: u8, k: u32| sock_filter { code, jt, jf, k };
    let refused = op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut numbers = REFUSED_32.to_vec();
    // The family cannot be told from the arguments of this call, which programs of the last ten years make no more.
    numbers.push(SOCKETCALL);
    if refuse_unix {
        numbers.push(SOCKET_32);
    }
    let mut old = vec![op(LOAD, 0, 0, 0)];
    for number in numbers {
        old.extend([op(EQUAL, 0, 1, number), refused.clone()]);
    }
    let by_argument = AT_INIT_32.map(|(number, argument)| (number, argument, 1));
    for (number, argument, value) in by_argument.into_iter().chain([(SOCKET_32, 0, libc::AF_VSOCK as u32)]) {
        let first_argument = 16;
        old.extend([op(EQUAL, 0, 4, number), op(LOAD, 0, 0, first_argument + 8 * u32::from(argument))]);
        old.extend([op(EQUAL, 0, 1, value), refused.clone(), op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)]);
    }
    old.push(op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    let mut program = vec![op(LOAD, 0, 0, 4), op(EQUAL, 1, 0, AUDIT_ARCH_I386), op(JUMP, 0, 0, old.len() as u32)];
    program.extend(old);
    // A third set of numbers is this processor's own with one bit set.
    program.extend([op(LOAD, 0, 0, 0), op(AT_LEAST, 0, 1, X32), refused]);
    program
}

/// Elsewhere a program of another kind is ended: 64-bit ARM servers run none.
#[cfg(not(target_arch = "x86_64"))]
fn other_numbers(_refuse_unix: bool) -> BpfProgram {
    BpfProgram::new()
}
