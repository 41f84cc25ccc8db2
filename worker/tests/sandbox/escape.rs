//! Attempts to escape from the sandbox, each made by an action: what it is told, and that it had no effect.

use kiln_worker::executor::{Exit, Job};
use nix::libc;

use super::attempts;
pub(crate) use super::attempts::call;
use super::place::{Place, confined};

/// A job that runs this program in Python.
fn python(place: &Place, program: &str) -> Job {
    let mut job = place.job("");
    job.arguments = attempts::python(program);
    job
}

/// Makes these attempts, and returns the result of each.
pub(crate) async fn answers(place: &Place, network: bool, attempts: &[(&str, String)]) -> Vec<(String, String)> {
    let mut job = python(place, &attempts::program(attempts));
    job.network = network;
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::Code(0), "expected the attempts to be made: {}{}", ran.text(), ran.err);
    attempts::answers(&ran.text())
}

/// Every attempt must be refused with one of these errors.
pub(crate) async fn refused(network: bool, errors: &[&str], attempts: &[(&str, String)]) {
    attempts::check(errors, attempts, &answers(&confined(), network, attempts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mount_is_made_moved_changed_or_left() {
    let attempts = [
        ("mount", call(libc::SYS_mount, "b'none', b'/tmp', b'tmpfs', 0, 0")),
        ("bind", call(libc::SYS_mount, &format!("b'/usr', b'/tmp', 0, {}, 0", libc::MS_BIND))),
        ("remount", call(libc::SYS_mount, &format!("0, b'/', 0, {}, 0", libc::MS_REMOUNT | libc::MS_BIND))),
        ("umount", call(libc::SYS_umount2, "b'/proc', 2")),
        ("pivot_root", call(libc::SYS_pivot_root, "b'/tmp', b'/tmp'")),
        ("chroot", call(libc::SYS_chroot, "b'/tmp'")),
        ("fsopen", call(libc::SYS_fsopen, "b'tmpfs', 0")),
        ("open_tree", call(libc::SYS_open_tree, "-100, b'/', 1")),
        ("mount_setattr", call(libc::SYS_mount_setattr, "-100, b'/', 0, bytes(8) + b'\\x01' + bytes(23), 32")),
        ("namespace", call(libc::SYS_unshare, &libc::CLONE_NEWNS.to_string())),
        ("setns", "call(308, os.open('/proc/self/ns/mnt', 0), 0)".replace("308", &libc::SYS_setns.to_string())),
        ("by handle", call(libc::SYS_open_by_handle_at, "-100, bytes(64), 0")),
    ];
    refused(false, &["EPERM"], &attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_user_namespace_is_made_that_would_give_rights_back() {
    let clone = |flags: i32| {
        let flags = flags | libc::SIGCHLD;
        format!(
            "(lambda pid: os._exit(0) if pid == 0 else 'open' if pid > 0 else name(ctypes.get_errno()))(libc.syscall({}, {flags}, 0, 0, 0, 0))",
            libc::SYS_clone
        )
    };
    let attempts = [
        ("unshare", call(libc::SYS_unshare, &libc::CLONE_NEWUSER.to_string())),
        ("with mounts", call(libc::SYS_unshare, &(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).to_string())),
        ("clone", clone(libc::CLONE_NEWUSER)),
        ("clone with a network", clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)),
    ];
    refused(false, &["EPERM", "ENOSPC"], &attempts).await;
    let ran = confined().script("unshare --user --map-root-user --mount id -u; unshare -r mount -t tmpfs x /tmp").await;
    assert_eq!(ran.text(), "", "expected no namespace: {}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_init_can_be_neither_traced_nor_read_nor_ended() {
    let mut attempts = vec![
        ("attach", call(libc::SYS_ptrace, &format!("{}, 1, 0, 0", libc::PTRACE_ATTACH))),
        ("seize", call(libc::SYS_ptrace, &format!("{}, 1, 0, 0", libc::PTRACE_SEIZE))),
        (
            "read memory",
            call(
                libc::SYS_process_vm_readv,
                "1, struct.pack('QQ', ctypes.addressof(room), 8), 1, struct.pack('QQ', 4096, 8), 1, 0",
            ),
        ),
        (
            "steal a descriptor",
            call(libc::SYS_pidfd_getfd, &format!("libc.syscall({}, 1, 0), 0, 0", libc::SYS_pidfd_open)),
        ),
        ("write its memory", "opened('/proc/1/mem', os.O_RDWR)".to_owned()),
        ("its processor", "attempt(lambda: os.sched_setaffinity(1, {0}))".to_owned()),
        ("its limits", call(libc::SYS_prlimit64, "1, 7, struct.pack('QQ', 1, 1), 0")),
        ("its priority", "attempt(os.setpriority, os.PRIO_PROCESS, 1, 19)".to_owned()),
        ("its schedule", "attempt(lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))".to_owned()),
    ];
    for file in ["root", "cwd", "exe", "fd/0", "environ", "mem", "maps", "stack", "syscall", "ns/mnt", "io", "auxv"] {
        attempts.push((file, format!("attempt(lambda: os.listdir('/proc/1/{file}') if {file:?} in ('root', 'cwd') else open('/proc/1/{file}', 'rb').read(1))")));
    }
    refused(false, &["EPERM", "EACCES", "EROFS"], &attempts).await;
    let ran = confined().script("kill -KILL 1; kill -TERM 1; kill -SEGV 1; echo alive").await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), "alive\n"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_outside_are_neither_seen_nor_signalled_nor_changed() {
    let outside = std::process::id();
    let attempts = [
        ("kill", format!("attempt(os.kill, {outside}, signal.SIGTERM)")),
        ("its files", format!("attempt(os.listdir, '/proc/{outside}/root')")),
        ("trace", call(libc::SYS_ptrace, &format!("{}, {outside}, 0, 0", libc::PTRACE_SEIZE))),
        ("priority", format!("attempt(os.setpriority, os.PRIO_PROCESS, {outside}, 5)")),
        ("affinity", format!("attempt(os.sched_setaffinity, {outside}, {{0}})")),
        ("limits", call(libc::SYS_prlimit64, &format!("{outside}, 7, struct.pack('QQ', 1, 1), 0"))),
        ("pidfd", call(libc::SYS_pidfd_open, &format!("{outside}, 0"))),
    ];
    refused(false, &["ESRCH", "ENOENT"], &attempts).await;
    let ran = confined().script("kill -KILL -1; echo alive").await;
    assert!(matches!(ran.exit(), Exit::Signal(9) | Exit::Code(_)), "expected only the job itself to end: {ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_settings_in_proc_are_read_only_and_its_memory_is_not_there() {
    let mut attempts = Vec::new();
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/fs/file-max",
        "/proc/sysrq-trigger",
        "/proc/self/uid_map",
        "/proc/irq/default_smp_affinity",
        "/proc/1/oom_score_adj",
        "/proc/1/coredump_filter",
    ] {
        // If the kernel lacks the file, it cannot be used either.
        attempts.push((path, format!("opened({path:?}, os.O_WRONLY)")));
    }
    refused(false, &["EROFS", "EACCES", "EPERM", "ENOENT"], &attempts).await;
    refused(true, &["EROFS", "EACCES", "EPERM", "ENOENT"], &attempts).await;
    let place = confined();
    let script =
        "for f in kcore kmsg keys timer_list slabinfo vmallocinfo kpagecount; do head -c 1 /proc/$f 2>/dev/null; done
         head -1 /proc/cpuinfo /proc/meminfo /proc/mounts >/dev/null && echo readable";
    assert_eq!(place.script(script).await.text(), "readable\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_terminal_of_the_worker_can_be_typed_into() {
    let mut attempts = vec![("controlling terminal", "opened('/dev/tty', os.O_RDWR)".to_owned())];
    for descriptor in ["0", "1", "2"] {
        attempts.push((descriptor, call(libc::SYS_ioctl, &format!("{descriptor}, {}, b'x'", libc::TIOCSTI))));
    }
    refused(false, &["ENXIO", "ENOTTY"], &attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn set_user_id_programs_give_no_rights() {
    use std::os::unix::fs::PermissionsExt;
    let place = confined();
    let mut job = place
        .job("./id -u; cp /usr/bin/id /tmp/id; chmod u+s /tmp/id; /tmp/id -u; su root -c 'id -u' </dev/null; true");
    let layer = place.layer("programs", &[]);
    std::fs::copy("/usr/bin/id", layer.join("id")).unwrap();
    std::fs::set_permissions(layer.join("id"), std::fs::Permissions::from_mode(0o6755)).unwrap();
    job.layers.push(layer);
    assert_eq!(place.run(job).await.text(), "1000\n1000\n");
    // Other users of the machine cannot reach what it left with such a mode.
    let mode = std::fs::metadata(place.dir.path().join("scratch")).unwrap().permissions().mode();
    assert_eq!(
        mode & 0o077,
        0,
        "expected only the worker to have access to the scratch directory, found mode {mode:o}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_own_files_and_open_descriptors_stay_outside() {
    use std::os::fd::AsRawFd;
    let place = confined();
    let key = place.dir.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    // Open in this process, and by mistake inherited by its children.
    let open = std::fs::File::open(&key).unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    assert!(open.as_raw_fd() > 2);
    let script = format!(
        "for f in /proc/self/fd/*; do echo ${{f##*/}}; done; cat {0}; ls {1}",
        key.display(),
        place.dir.path().display()
    );
    let mut job = place.job("");
    job.arguments = ["/bin/bash", "-c", &script].map(str::to_owned).into();
    let ran = place.run(job).await;
    assert_eq!(
        ran.text(),
        "0\n1\n2\n3\n",
        "expected the standard streams and the listing's own descriptor: {}",
        ran.err
    );
    let ran = place.script("for p in /proc/[0-9]*; do readlink $p/fd/* | grep socket; done; echo none").await;
    assert_eq!(ran.text(), "none\n", "expected no socket to the worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_shared_with_the_machine_is_not_there() {
    let shared = std::path::Path::new("/dev/shm").join(format!("kiln-test-{}", std::process::id()));
    std::fs::write(&shared, "secret").unwrap();
    let made = std::process::Command::new("ipcmk").args(["-M", "4096"]).output().unwrap();
    let id = String::from_utf8_lossy(&made.stdout).trim().rsplit(' ').next().unwrap_or_default().to_owned();
    let ran =
        confined().script("ls /dev/shm; tail -n +2 /proc/sysvipc/shm; ipcmk -M 4096 >/dev/null && echo own").await;
    std::fs::remove_file(&shared).unwrap();
    assert!(std::process::Command::new("ipcrm").args(["-m", &id]).status().unwrap().success());
    assert_eq!(ran.text(), "own\n", "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_priorities_are_not_raised_and_no_core_is_written() {
    let raise = |limit: i32| call(libc::SYS_prlimit64, &format!("0, {limit}, struct.pack('QQ', 2**63, 2**63), 0"));
    let attempts = [
        ("priority", "attempt(os.setpriority, os.PRIO_PROCESS, 0, -5)".to_owned()),
        ("real time", "attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))".to_owned()),
        ("files", raise(libc::RLIMIT_NOFILE as i32)),
        ("cores", raise(libc::RLIMIT_CORE as i32)),
        ("i/o", call(libc::SYS_ioprio_set, "1, 0, 1 << 13")),
        ("clock", call(libc::SYS_settimeofday, "bytes(16), 0")),
        ("host name", call(libc::SYS_sethostname, "b'x', 1")),
    ];
    refused(false, &["EPERM", "EACCES"], &attempts).await;
    let ran = confined().script("grep core /proc/self/limits; sh -c 'kill -SEGV $$'; ls -A | grep core").await;
    // One byte, not zero: for a kernel that pipes core dumps to a program, this is the only limit that works.
    assert_eq!(ran.text().split_whitespace().collect::<Vec<_>>(), ["Max", "core", "file", "size", "1", "1", "bytes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_to_the_root_or_linked_out_of_the_tree() {
    let attempts = [
        ("root", "opened('/kiln-file', os.O_CREAT | os.O_WRONLY)".to_owned()),
        ("system", "opened('/usr/bin/env', os.O_WRONLY)".to_owned()),
        ("libraries", "attempt(os.rename, '/usr/lib', '/usr/lib2')".to_owned()),
        ("devices", "opened('/dev/kiln', os.O_CREAT | os.O_WRONLY)".to_owned()),
        ("users", "opened('/etc/passwd', os.O_WRONLY)".to_owned()),
        ("modes", "attempt(os.chmod, '/usr/bin/env', 0o777)".to_owned()),
        ("hard link", "attempt(os.link, '/usr/bin/env', '/build/env')".to_owned()),
        (
            "hard link to /tmp",
            "attempt(lambda: (open('/build/x', 'w').close(), os.link('/build/x', '/tmp/x')))".to_owned(),
        ),
        ("the mount itself", "attempt(os.rename, '/build', '/tmp/build')".to_owned()),
        ("whiteout", "attempt(os.mknod, '/build/w', stat.S_IFBLK, 0)".to_owned()),
    ];
    refused(false, &["EROFS", "EACCES", "EXDEV", "EBUSY", "EPERM"], &attempts).await;
}
