//! The few system calls that have no safe wrapper. The worker's only module with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

fn set_attributes(directory: i32, path: &Path, flags: i32, attributes: &MountAttr) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path and the structure outlive the call, and the size is the structure's own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Disables set-user-id programs on a mount and all mounts below it; optionally also makes them read-only or forbids
/// devices.
pub fn restrict_mount(path: &Path, read_only: bool, no_devices: bool) -> io::Result<()> {
    let mut attr_set = MOUNT_ATTR_NOSUID;
    if read_only {
        attr_set |= MOUNT_ATTR_RDONLY;
    }
    if no_devices {
        attr_set |= MOUNT_ATTR_NODEV;
    }
    let attributes = MountAttr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_attributes(libc::AT_FDCWD, path, libc::AT_RECURSIVE, &attributes)
}

/// Forbids devices on a detached mount and all mounts below it; optionally also makes them read-only, or disables set-user-id programs.
pub fn restrict_tree(tree: BorrowedFd<'_>, read_only: bool, no_set_user_id: bool) -> io::Result<()> {
    let mut attr_set = MOUNT_ATTR_NODEV;
    if read_only {
        attr_set |= MOUNT_ATTR_RDONLY;
    }
    if no_set_user_id {
        attr_set |= MOUNT_ATTR_NOSUID;
    }
    let attributes = MountAttr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_attributes(tree.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, &attributes)
}

/// Sets a filter of system calls for this thread and what it starts, without giving up set-user-id programs. Needs `CAP_SYS_ADMIN`.
pub fn filter_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which outlives the call, and does not change it.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u64, std::ptr::from_ref(&program)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Shows a detached mount (from `open_tree`) with its owners mapped by a user namespace.
pub fn map_owners(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd = user_namespace.as_raw_fd() as u64;
    let attributes = MountAttr { attr_set: MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set_attributes(mount.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH, &attributes)
}

/// A kind of System V IPC object.
#[derive(Debug, Clone, Copy)]
pub enum Ipc {
    /// Shared memory segments.
    SharedMemory,
    /// Semaphore sets.
    Semaphores,
    /// Message queues.
    Messages,
}

impl Ipc {
    /// The file in which the kernel lists this namespace's objects of this kind.
    pub fn table(self) -> &'static str {
        match self {
            Self::SharedMemory => "/proc/sysvipc/shm",
            Self::Semaphores => "/proc/sysvipc/sem",
            Self::Messages => "/proc/sysvipc/msg",
        }
    }
}

/// Removes an object.
pub fn remove_ipc(kind: Ipc, id: i32) -> io::Result<()> {
    // SAFETY: with IPC_RMID no memory is read or written.
    let result = unsafe {
        match kind {
            Ipc::SharedMemory => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            Ipc::Semaphores => libc::semctl(id, 0, libc::IPC_RMID),
            Ipc::Messages => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The I/O priority of this thread.
pub fn io_priority() -> i64 {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: only numbers are passed.
    unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) }
}

/// A child that ended, with the resources used by it and by the processes that it waited for.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reaped {
    /// Its process id.
    pub pid: i32,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Peak memory, in bytes.
    pub peak_bytes: u64,
}

/// Waits for any child to end; `None` if there are no children.
pub fn reap_any() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: all zeroes are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places outlive the call.
    let pid = unsafe { libc::wait4(-1, &raw mut status, 0, &raw mut usage) };
    if pid < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Ok(Some(Reaped {
        pid,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        peak_bytes: usage.ru_maxrss as u64 * 1024,
    }))
}

/// Takes ownership of a descriptor that the kernel has just created for this process.
pub fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the caller has it from the call that created it, and nothing else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// A descriptor that a task can wait for until it is readable or writable.
///
/// # Errors
/// If the kernel does not report that of such a descriptor.
pub fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it is open, and the same one, for as long as it is owned.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

/// Brings up the loopback interface of this network namespace.
pub fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a whole `ifreq` and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on as close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only numbers are passed; nothing is closed now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Loads a program that filters addresses (`BPF_PROG_TYPE_CGROUP_SOCK_ADDR`) for one attach type.
pub fn load_address_filter(program: &[u64], place: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        instructions: u32,
        program: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        place: u32,
    }
    const BPF_PROG_LOAD: i32 = 5;
    const CGROUP_SOCK_ADDR: u32 = 18;
    let load = Load {
        kind: CGROUP_SOCK_ADDR,
        instructions: program.len() as u32,
        program: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        place,
        ..Load::default()
    };
    // SAFETY: the structure and what it points to outlive the call, and the size is the structure's own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, std::ptr::from_ref(&load), size_of::<Load>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(own(result as RawFd)) }
}

/// Attaches such a program to a version 2 control group and the groups below it.
pub fn attach_to_group(group: BorrowedFd<'_>, program: BorrowedFd<'_>, place: u32) -> io::Result<()> {
    const BPF_PROG_ATTACH: i32 = 8;
    const ALLOW_MULTI: u32 = 2;
    let attach = [group.as_raw_fd() as u32, program.as_raw_fd() as u32, place, ALLOW_MULTI];
    // SAFETY: the four numbers outlive the call, and the size is theirs.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a command, once it is started, the leader of a session of its own whose terminal is its standard input.
pub fn lead_session(command: &mut Command) {
    let lead = || {
        let unless_failed = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        // SAFETY: neither call takes a pointer.
        unless_failed(unsafe { libc::setsid() })?;
        unless_failed(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) })
    };
    // SAFETY: between fork and exec it makes two system calls, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(lead) };
}

/// Sets the size of a terminal's window, on either side of it; the processes in its foreground are told if it changes.
pub fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(&size)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Forks; `None` in the child. Only for a single-threaded process.
pub fn fork_alone() -> io::Result<Option<Pid>> {
    // SAFETY: the caller has one thread, so that the child inherits no lock that another thread holds.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Starts a PID namespace for what this thread starts from now on, and mounts its `/proc` at this path. The namespace's first process is none of
/// the caller's: it takes in orphans, and lasts until it is killed from outside.
pub fn own_processes(proc: &Path) -> io::Result<()> {
    let proc = CString::new(proc.as_os_str().as_bytes())?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let (mut ready, done) = io::pipe()?;
    // SAFETY: the child makes system calls with what was made before, and nothing else: no lock that another thread holds is in its way.
    if let ForkResult::Child = unsafe { fork() }? {
        first_process(&proc, done.as_raw_fd());
    }
    drop(done);
    let mut error = [0; 4];
    ready.read_exact(&mut error)?;
    match i32::from_ne_bytes(error) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The first process of a namespace. Only there is its `/proc` mounted.
fn first_process(proc: &CStr, done: RawFd) -> ! {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: system calls with strings and a buffer that outlive them.
    unsafe {
        let mounted = libc::mount(c"proc".as_ptr(), proc.as_ptr(), c"proc".as_ptr(), flags, std::ptr::null());
        let error = if mounted == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) };
        // Nobody waits for orphans.
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::write(done, error.to_ne_bytes().as_ptr().cast(), size_of::<i32>());
        // Whoever reads what the job writes must not wait for this process.
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        loop {
            libc::pause();
        }
    }
}
