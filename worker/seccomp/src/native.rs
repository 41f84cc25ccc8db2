//! The system call numbers of this processor.
//!
//! Allowed is what container engines allow a container without capabilities, less what no build needs.

use nix::libc;

use super::filter::{Answer, Table};
use super::{ABSENT, Numbers, REFUSED};

/// This processor's own programs, as filters and listeners see them (`AUDIT_ARCH_*` of linux/audit.h).
#[cfg(target_arch = "x86_64")]
pub const ARCHITECTURE: u32 = 0xc000_003e;
/// This processor's own programs, as filters and listeners see them (`AUDIT_ARCH_*` of linux/audit.h).
#[cfg(target_arch = "aarch64")]
pub const ARCHITECTURE: u32 = 0xc000_00b7;

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name as u32),*] };
}

/// Refused explicitly, so that a program learns that it lacks permission and does not assume an old kernel.
const DENIED: &[u32] = calls![
    // BPF, performance counters and io_uring.
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_fanotify_init
    SYS_fanotify_mark
    // Keyrings are not namespaced: the action would use the worker's session keyring.
    SYS_keyctl SYS_add_key SYS_request_key
    // Mounts and namespaces.
    SYS_mount SYS_umount2 SYS_pivot_root SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_mount_setattr SYS_setns SYS_unshare SYS_chroot SYS_open_by_handle_at SYS_name_to_handle_at
    // Other processes' descriptors and memory.
    SYS_pidfd_getfd SYS_kcmp SYS_process_madvise SYS_process_mrelease SYS_migrate_pages SYS_move_pages SYS_mbind
    SYS_get_mempolicy SYS_set_mempolicy
    // The machine as a whole, such as its log, modules, clocks and power.
    SYS_syslog SYS_kexec_load SYS_kexec_file_load SYS_init_module SYS_finit_module SYS_delete_module SYS_swapon SYS_swapoff
    SYS_reboot SYS_acct SYS_quotactl SYS_quotactl_fd SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime
    SYS_vhangup SYS_sethostname SYS_setdomainname SYS_memfd_secret SYS_lookup_dcookie
];

/// What builds use: files, processes, memory, signals, time, sockets.
const COMMON: &[u32] = calls![
    SYS_accept SYS_accept4 SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_getres SYS_clock_gettime
    SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit SYS_exit_group
    SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat
    SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs
    SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid
    SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority
    SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrlimit SYS_get_robust_list SYS_getrusage SYS_getsid SYS_getsockname
    SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1
    SYS_inotify_rm_watch SYS_io_cancel SYS_ioctl SYS_io_destroy SYS_io_getevents SYS_ioprio_get
    SYS_io_setup SYS_io_submit SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self
    SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise
    SYS_membarrier SYS_memfd_create SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap
    SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink
    SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_nanosleep
    SYS_newfstatat SYS_openat SYS_openat2 SYS_personality SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc
    SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_process_vm_readv
    SYS_process_vm_writev SYS_pselect6 SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat2
    SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo
    SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_getaffinity SYS_sched_getattr
    SYS_sched_getparam SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getscheduler
    SYS_sched_rr_get_interval SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_sendfile
    SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid
    SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_set_robust_list SYS_setsid SYS_setsockopt
    SYS_set_tid_address SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown SYS_sigaltstack
    SYS_signalfd4 SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee
    SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime
    SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate SYS_umask SYS_uname
    SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
];

/// Older forms of these calls, which programs on this processor still use.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE_ONLY: &[u32] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_wait SYS_eventfd
    SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_get_thread_area SYS_inotify_init SYS_lchown SYS_link SYS_lstat
    SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_renameat SYS_rmdir
    SYS_select SYS_set_thread_area SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE_ONLY: &[u32] = calls![SYS_renameat];

/// Newer than the constants in `libc`, and with the same number on every processor: `cachestat`, `fchmodat2`,
/// `map_shadow_stack`, `futex_wake`, `futex_wait`, `futex_requeue`, `mseal`.
const RECENT: [u32; 7] = [451, 452, 453, 454, 455, 456, 462];

/// Calls that are refused except in a root of its own.
const IN_ROOT: &[u32] = calls![SYS_chroot];

/// `in_root`: for a job in a root of its own.
pub(super) fn numbers(in_root: bool) -> Numbers {
    let at_init = [
        (libc::SYS_prlimit64, 0),
        (libc::SYS_sched_setaffinity, 0),
        (libc::SYS_sched_setscheduler, 0),
        (libc::SYS_sched_setparam, 0),
        (libc::SYS_sched_setattr, 0),
        (libc::SYS_setpriority, 1),
        (libc::SYS_ioprio_set, 1),
    ];
    let allowed = COMMON.iter().chain(ARCHITECTURE_ONLY).chain(&RECENT).map(|number| (*number, Answer::Allow));
    let more = IN_ROOT.iter().filter(|_| in_root).map(|number| (*number, Answer::Allow));
    Numbers {
        table: Table::new(allowed.chain(DENIED.iter().map(|number| (*number, REFUSED))).chain(more), ABSENT),
        clone: libc::SYS_clone as u32,
        socket: libc::SYS_socket as u32,
        socketpair: libc::SYS_socketpair as u32,
        at_init: at_init.map(|(number, argument)| (number as u32, argument)),
    }
}
