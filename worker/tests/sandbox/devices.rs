//! Devices, memory that looks like files, and the kernel's files.

use kiln_worker::executor::Exit;

use super::escape::refused;
use super::place::{MIB, confined};

#[tokio::test(flavor = "multi_thread")]
async fn no_device_is_made_or_found_but_the_harmless_ones() {
    let mut attempts = Vec::new();
    for (name, kind, (major, minor)) in
        [("memory", "S_IFCHR", (1, 1)), ("log", "S_IFCHR", (1, 11)), ("disk", "S_IFBLK", (8, 0))]
    {
        for directory in ["/tmp", "/build", "/dev/shm"] {
            attempts.push((
                name,
                format!("attempt(os.mknod, '{directory}/{name}', stat.{kind} | 0o666, os.makedev({major}, {minor}))"),
            ));
        }
    }
    refused(false, &["EPERM"], &attempts).await;
    let ran = confined().script("ls /dev; for d in mem kmem kmsg port sda vda fuse kvm net/tun loop0 mapper/control; do head -c 1 /dev/$d; done").await;
    assert_eq!(ran.text(), "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_device_nodes_are_not_changed() {
    use std::os::unix::fs::MetadataExt;
    let state = || {
        let of = |name: &str| {
            let data = std::fs::metadata(format!("/dev/{name}")).unwrap();
            (name.to_owned(), data.mode(), data.uid(), data.gid(), data.mtime())
        };
        ["null", "zero", "full", "random", "urandom", "tty"].map(of)
    };
    let before = state();
    let mut attempts = Vec::new();
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        attempts.push((name, format!("attempt(os.chmod, '/dev/{name}', 0)")));
        attempts.push((name, format!("attempt(os.chown, '/dev/{name}', 1000, 1000)")));
        attempts.push((name, format!("attempt(os.utime, '/dev/{name}', (0, 0))")));
        attempts.push((name, format!("attempt(lambda: os.setxattr('/dev/{name}', 'user.x', b'x'))")));
        attempts.push((name, format!("attempt(os.unlink, '/dev/{name}')")));
    }
    // Masks over files of /proc are such nodes, too.
    attempts.push(("hidden", "attempt(os.chmod, '/proc/keys', 0)".to_owned()));
    refused(false, &["EROFS", "EPERM", "EBUSY"], &attempts).await;
    assert_eq!(state(), before);
    let ran = confined().script("echo x > /dev/null && head -c 2 /dev/zero | wc -c; echo x > /dev/full").await;
    assert_eq!(ran.text(), "2\n", "expected them to work: {}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_kernel_that_show_the_machine_are_empty() {
    let script =
        "for f in kallsyms config.gz iomem ioports interrupts softirqs modules; do head -c 1 /proc/$f 2>/dev/null; done
         ls -A /proc/irq /proc/bus /proc/scsi 2>/dev/null | grep -v :
         grep overlay /proc/self/mountinfo";
    let place = confined();
    let ran = place.script(script).await;
    let text = ran.text();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1, "expected only the mount of the inputs: {text}");
    let outside = place.dir.path().to_str().unwrap();
    assert!(!lines[0].contains(outside), "expected no path of the machine in: {}", lines[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_is_bounded_and_memory_that_runs_out_ends_the_command() {
    let place = confined();
    let mut job = place.job("head -c 200000000 /dev/zero > /dev/shm/a; stat -c %s /dev/shm/a");
    job.memory_bytes = 128 * MIB;
    let ran = place.run(job).await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), "67108864\n"), "{}", ran.err);
    // Many small processes, none larger than the init.
    let small = "head -c 30000000 /dev/zero > /dev/shm/a
        for i in $(seq 150); do (x=$(head -c 1000000 /dev/zero | tr '\\0' x); sleep 1000) & done; wait; exit 0";
    let mut job = place.job(small);
    job.memory_bytes = 64 * MIB;
    // On a busy machine more of them are alive at once.
    job.max_processes = 4096;
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::OutOfMemory, "{}", ran.err);
}

/// A separate file system, small enough to be filled.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &std::path::Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mounted =
            nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=700m"));
        mounted.ok().map(|()| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_somebody_else_fills_is_not_held_against_a_step() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(&dir.path().join("disk")) else { return super::cannot_run("root, who may mount") };
    let place = super::place::on(&disk.0);
    let full = || std::fs::write(disk.0.join("others"), vec![1; 600 << 20]).unwrap();
    // While it runs, and so that it fails.
    for script in
        ["echo ready; sleep 1000", "echo ready; while [ $(stat -f -c %a .) -gt 40000 ]; do sleep 0.01; done; exit 1"]
    {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
        let run = place.sandbox.run(place.job(script), sender, tokio_util::sync::CancellationToken::new());
        let fill = async {
            receiver.recv().await.expect("expected it to become ready");
            full();
            while receiver.recv().await.is_some() {}
        };
        let (finished, ()) = tokio::join!(run, fill);
        assert_eq!(finished.unwrap().exit, Exit::NoRoom, "{script}");
        std::fs::remove_file(disk.0.join("others")).unwrap();
    }
    // If a step itself fills the disk, that is the step's fault.
    let mut job = place.job("head -c 650000000 /dev/zero > big; sleep 1000");
    // This file system is in memory.
    job.memory_bytes = 2048 * MIB;
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::DiskFull, "{}", ran.err);
    drop(ran);
    drop(place);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_larger_than_what_a_step_may_write() {
    let place = confined();
    let mut job = place.job("truncate -s 2G large || echo refused; truncate -s 500M small && echo made");
    job.disk_bytes = 1 << 30;
    let ran = place.run(job).await;
    assert!(ran.text().ends_with("made\n") && ran.left("large").is_none_or(|large| large.is_empty()), "{ran:?}");
}
