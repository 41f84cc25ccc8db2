//! Attempts to escape from a root, each made by root in it: what it is told, and that it had no effect.

use kiln_proto::root::{NETWORK_DEFAULT, NETWORK_NONE};
use nix::libc;

use crate::attempts::{self, call};
use crate::base::debian;
use crate::place::{Ask, ask, place};

/// Root running this program in Python; none where this machine has no such root.
fn python(program: &str) -> Option<Ask> {
    let (root, _) = debian(&place().cas)?;
    let mut ask = ask(root, "");
    ask.arguments = attempts::python(program);
    Some(ask)
}

/// Every attempt must be refused with one of these errors.
async fn refused(network: &'static str, errors: &[&str], attempts: &[(&str, String)]) {
    let Some(mut ask) = python(&attempts::program(attempts)) else { return };
    ask.network = network;
    let said = place().run(ask).await.ok();
    attempts::check(errors, attempts, &attempts::answers(&said));
}

async fn said(program: &str) -> Option<String> {
    Some(place().run(python(program)?).await.ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn root_has_the_rights_that_packages_need_and_ids_of_nobody_else() {
    let program = "
status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
print(status['CapEff'], status['CapPrm'], status['CapBnd'], status['CapInh'], status['CapAmb'], status['NoNewPrivs'], status['Seccomp'])
print(status['Uid'], status['Groups'])
print(open('/proc/self/uid_map').read().split())";
    let Some(said) = said(program).await else { return };
    // AUDIT_WRITE, SETFCAP, SYS_CHROOT, NET_RAW, NET_BIND_SERVICE, SETPCAP, SETUID, SETGID, KILL, FSETID, FOWNER, DAC_OVERRIDE, CHOWN.
    let kept = "00000000a00425fb";
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some(format!("{kept} {kept} {kept} {0} {0} 0 2", "0".repeat(16)).as_str()));
    assert_eq!(lines.next().map(str::trim_end), Some("0\t0\t0\t0"));
    let map: Vec<u64> =
        lines.next().unwrap().split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    assert!(map[0] == 0 && map[1] >= 65_536 && map[2] == 65_536, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mount_is_made_moved_changed_or_left_by_root() {
    let attempts = [
        ("mount", call(libc::SYS_mount, "b'none', b'/mnt', b'tmpfs', 0, 0")),
        ("bind", call(libc::SYS_mount, &format!("b'/usr', b'/mnt', 0, {}, 0", libc::MS_BIND))),
        ("remount", call(libc::SYS_mount, &format!("0, b'/proc/sys', 0, {}, 0", libc::MS_REMOUNT | libc::MS_BIND))),
        ("umount", call(libc::SYS_umount2, "b'/proc/sys', 2")),
        ("umount of names", call(libc::SYS_umount2, "b'/etc/resolv.conf', 2")),
        ("pivot_root", call(libc::SYS_pivot_root, "b'/tmp', b'/tmp'")),
        ("fsopen", call(libc::SYS_fsopen, "b'tmpfs', 0")),
        ("open_tree", call(libc::SYS_open_tree, "-100, b'/', 1")),
        ("mount_setattr", call(libc::SYS_mount_setattr, "-100, b'/', 0, bytes(8) + b'\\x01' + bytes(23), 32")),
        ("namespace", call(libc::SYS_unshare, &libc::CLONE_NEWNS.to_string())),
        ("user namespace", call(libc::SYS_unshare, &libc::CLONE_NEWUSER.to_string())),
        ("setns", call(libc::SYS_setns, "os.open('/proc/self/ns/mnt', 0), 0")),
        ("by handle", call(libc::SYS_open_by_handle_at, "-100, bytes(64), 0")),
    ];
    refused(NETWORK_NONE, &["EPERM"], &attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_root_leads_nowhere_else() {
    let directory = place().directory.display().to_string();
    let program = format!(
        "
os.makedirs('/cage/a', exist_ok=True)
held = os.open('/', os.O_RDONLY)
before = os.stat('/')
os.chroot('/cage')
os.chdir('/')
os.fchdir(held)
for _ in range(200): os.chdir('..')
os.chroot('.')
after = os.stat('/')
print((before.st_dev, before.st_ino) == (after.st_dev, after.st_ino), os.path.exists({directory:?}), os.path.exists('/kiln'), len(os.listdir('/mnt')))
"
    );
    let Some(said) = said(&program).await else { return };
    assert_eq!(said, "True False False 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_init_is_neither_traced_nor_read_nor_changed_by_root() {
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
        ("its score", "written('/proc/1/oom_score_adj')".to_owned()),
        ("its dumps", "written('/proc/1/coredump_filter')".to_owned()),
    ];
    for file in ["root", "cwd", "exe", "fd/0", "environ", "mem", "maps", "stack", "syscall", "ns/mnt", "io", "auxv"] {
        attempts.push((file, format!("attempt(lambda: os.listdir('/proc/1/{file}') if {file:?} in ('root', 'cwd') else open('/proc/1/{file}', 'rb').read(1))")));
    }
    refused(NETWORK_NONE, &["EPERM", "EACCES", "EROFS"], &attempts).await;
    // Each of its threads, too, is out of reach, and no signal ends it.
    let program = "
for task in os.listdir('/proc/1/task'):
    print(attempt(lambda: os.readlink(f'/proc/1/task/{task}/root')))
for number in (9, 15, 11, 19): os.kill(1, number)
print('alive')";
    let Some(said) = said(program).await else { return };
    assert!(said.lines().rev().skip(1).all(|line| line == "EACCES" || line == "EPERM"), "{said}");
    assert!(said.ends_with("alive\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_outside_are_neither_seen_nor_signalled_by_root() {
    let outside = std::process::id();
    let attempts = [
        ("kill", format!("attempt(os.kill, {outside}, signal.SIGTERM)")),
        ("its files", format!("attempt(os.listdir, '/proc/{outside}/root')")),
        ("trace", call(libc::SYS_ptrace, &format!("{}, {outside}, 0, 0", libc::PTRACE_SEIZE))),
        ("limits", call(libc::SYS_prlimit64, &format!("{outside}, 7, struct.pack('QQ', 1, 1), 0"))),
        ("pidfd", call(libc::SYS_pidfd_open, &format!("{outside}, 0"))),
    ];
    refused(NETWORK_NONE, &["ESRCH", "ENOENT"], &attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_settings_and_devices_are_not_roots_here() {
    let mut attempts = Vec::new();
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv4/ping_group_range",
        "/proc/sys/fs/file-max",
        "/proc/self/uid_map",
        "/proc/self/gid_map",
        "/proc/irq/default_smp_affinity",
        "/proc/bus/pci/devices",
        "/proc/mtrr",
        "/proc/dynamic_debug/control",
        "/proc/self/setgroups",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/module/printk/parameters/time",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ] {
        attempts.push((path, format!("written({path:?})")));
    }
    refused(NETWORK_NONE, &["EROFS", "EACCES", "EPERM", "ENOENT", "EINVAL"], &attempts).await;
    refused(NETWORK_DEFAULT, &["EROFS", "EACCES", "EPERM", "ENOENT", "EINVAL"], &attempts).await;
    let device = |kind: &str, major: u32, minor: u32| {
        format!("attempt(os.mknod, '/device', stat.{kind} | 0o600, os.makedev({major}, {minor}))")
    };
    let attempts = [
        ("disk", device("S_IFBLK", 8, 0)),
        ("memory", device("S_IFCHR", 1, 1)),
        ("null", device("S_IFCHR", 1, 3)),
        ("whiteout", device("S_IFCHR", 0, 0)),
        ("fuse", "opened('/dev/fuse', os.O_RDWR)".to_owned()),
        ("tun", "opened('/dev/net/tun', os.O_RDWR)".to_owned()),
        ("log", "opened('/dev/kmsg', os.O_RDWR)".to_owned()),
        ("mode of a device", "attempt(os.chmod, '/dev/null', 0o600)".to_owned()),
        ("mark of overlayfs", "attempt(os.setxattr, '/usr', 'trusted.overlay.opaque', b'y')".to_owned()),
        ("another id", "attempt(os.chown, '/usr', 70000, 0)".to_owned()),
        ("become another id", "attempt(os.setuid, 70000)".to_owned()),
    ];
    refused(NETWORK_NONE, &["EPERM", "EACCES", "ENOENT", "EROFS", "EINVAL", "EOPNOTSUPP"], &attempts).await;
    let program = "
for file in ('kcore', 'kmsg', 'keys', 'timer_list', 'slabinfo', 'vmallocinfo', 'kpagecount', 'kallsyms', 'iomem', 'interrupts'):
    try: data = open('/proc/' + file, 'rb').read(1)
    except OSError: data = b''
    if data: print(file)
print(len(os.listdir('/sys/fs/cgroup')), len(os.listdir('/sys/firmware') if os.path.isdir('/sys/firmware') else []))";
    let Some(said) = said(program).await else { return };
    assert_eq!(said, "0 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_about_the_machine_are_refused_to_root() {
    let raise = |limit: i32| call(libc::SYS_prlimit64, &format!("0, {limit}, struct.pack('QQ', 2**63, 2**63), 0"));
    let attempts = [
        ("priority", "attempt(os.setpriority, os.PRIO_PROCESS, 0, -5)".to_owned()),
        ("real time", "attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))".to_owned()),
        ("files", raise(libc::RLIMIT_NOFILE as i32)),
        ("cores", raise(libc::RLIMIT_CORE as i32)),
        ("clock", call(libc::SYS_settimeofday, "bytes(16), 0")),
        ("host name", call(libc::SYS_sethostname, "b'x', 1")),
        ("programs", call(libc::SYS_bpf, "0, bytes(64), 64")),
        ("keys", call(libc::SYS_keyctl, "0, -3, 1")),
        ("rings", call(libc::SYS_io_uring_setup, "1, bytes(120)")),
        ("module", call(libc::SYS_init_module, "0, 0, 0")),
        ("reboot", call(libc::SYS_reboot, "0, 0, 0, 0")),
        ("counters", call(libc::SYS_perf_event_open, "bytes(128), 0, -1, -1, 0")),
        ("faults", call(libc::SYS_userfaultfd, "0")),
        ("packets", "attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))".to_owned()),
        ("machine", "attempt(lambda: socket.socket(40, socket.SOCK_STREAM))".to_owned()),
    ];
    refused(NETWORK_NONE, &["EPERM", "EACCES"], &attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_closed_stay_closed_to_root() {
    // RTM_DELROUTE of the route that closes the address, and RTM_NEWROUTE of one to the loopback.
    let program = "
def ask(kind, attributes):
    body = struct.pack('BBBBBBBBI', 2, 32, 0, 0, 254, 4, 0, 7 if kind == 25 else 2, 0)
    for number, value in attributes: body += struct.pack('HH', 4 + len(value), number) + value
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.send(struct.pack('IHHII', 16 + len(body), kind, 5, 1, 0) + body)
    return name(-struct.unpack('i', netlink.recv(4096)[16:20])[0])
address = socket.inet_aton('169.254.169.254')
print(ask(25, [(1, address)]), ask(24, [(1, address), (4, struct.pack('i', 1))]))
def reach(address):
    link = socket.socket(); link.settimeout(5)
    try: link.connect((address, 80)); return 'open'
    except OSError as error: return name(error.errno)
print(reach('169.254.169.254'))";
    let Some(mut ask) = python(program) else { return };
    ask.network = NETWORK_DEFAULT;
    if !place().sandbox.has_own_networks() {
        return crate::base::cannot_run("steps have no networks of their own here");
    }
    assert_eq!(place().run(ask).await.ok(), "EPERM EPERM\nEHOSTUNREACH\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn set_user_id_files_of_roots_are_out_of_reach_on_the_machine() {
    use std::os::unix::fs::PermissionsExt;
    for directory in ["roots", "sandbox"] {
        let mode = std::fs::metadata(place().directory.join(directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "expected `{directory}` to be the worker's alone, found mode {mode:o}");
    }
}
