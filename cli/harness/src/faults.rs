//! Faults of machines, made by the kernel and undone when dropped: a link that goes down, a disk that is full, a clock that jumps. And clients
//! that go on while they happen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Random numbers, reproducible from a seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace with one cable to this machine. Both disappear with the process that holds the namespace.
pub struct Link {
    holder: Child,
    cable: String,
    /// This machine's address on the cable.
    pub address: String,
}

impl Link {
    #[expect(clippy::new_without_default, reason = "it starts processes")]
    pub fn new() -> Self {
        let pid = std::process::id();
        // Each test program has its own network, from the range reserved for benchmarks.
        let (cable, net) = (format!("kc{pid}"), format!("198.18.{}", pid % 250));
        let mut holder = Command::new("unshare");
        let mut holder = holder.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let space = format!("/proc/{}/ns/net", holder.id());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        crate::until("the namespace", || {
            assert!(holder.try_wait().unwrap().is_none(), "expected a network namespace");
            (std::fs::read_link(&space).ok()? != own).then_some(())
        });
        let (here, there) = (format!("{net}.1/24"), format!("{net}.2/24"));
        let id = holder.id().to_string();
        run("ip", &["link", "add", &cable, "type", "veth", "peer", "name", "far", "netns", &id]);
        run("ip", &["address", "add", &here, "dev", &cable]);
        run("ip", &["link", "set", &cable, "up"]);
        let link = Self { holder, cable, address: format!("{net}.1") };
        let inside = |arguments: &[&str]| {
            let enter = link.enter();
            run(&enter[0], &[&[enter[1].as_str()], arguments].concat());
        };
        inside(&["ip", "address", "add", &there, "dev", "far"]);
        inside(&["ip", "link", "set", "far", "up"]);
        inside(&["ip", "link", "set", "lo", "up"]);
        link
    }

    /// The command that runs a program in the namespace.
    pub fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.id())]
    }

    pub fn set(&self, state: &str) {
        run("ip", &["link", "set", &self.cable, state]);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The kernel takes time to remove a namespace; the cable is removed at once.
        let _ = Command::new("ip").args(["link", "del", &self.cable]).status();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A small disk in memory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn at(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=48m", "kiln-chaos", dir.to_str().unwrap()]);
        Self(dir.to_owned())
    }

    /// Fills the disk completely.
    pub fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
    }

    pub fn empty(&self) {
        let _ = std::fs::remove_file(self.0.join("filler"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The clock of one process, changed by libfaketime: its offset is in a file, which may change at any time.
pub struct Clock(PathBuf);

impl Clock {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

    pub fn is_installed() -> bool {
        Path::new(Self::LIBRARY).exists()
    }

    pub fn at(file: PathBuf) -> Self {
        let clock = Self(file);
        clock.jump(3600);
        clock
    }

    /// Sets the clock's offset in seconds.
    pub fn jump(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }

    /// Environment variables for the process that uses it.
    pub fn variables(&self) -> [(&str, &str); 4] {
        let file = self.0.to_str().unwrap();
        [
            ("LD_PRELOAD", Self::LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}

/// Clients that do numbered things one after the other, while faults happen with pauses of up to `pause` between them; returns how often each
/// fault happened. Every third number is one that has been before, so that what it does may be in a cache.
pub fn storm(
    clients: usize,
    things: usize,
    run: impl Fn(usize) + Sync,
    dice: &mut Dice,
    pause: Duration,
    mut fault: impl FnMut(&mut Dice) -> &'static str,
) -> BTreeMap<&'static str, usize> {
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut faults = BTreeMap::new();
    let client = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= things {
                break;
            }
            run(if number % 3 == 2 { number / 2 } else { number });
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        scope.spawn(|| {
            clients.into_iter().for_each(|client| client.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            *faults.entry(fault(dice)).or_default() += 1;
            std::thread::sleep(Duration::from_millis(dice.roll(pause.as_millis() as u64)));
        }
    });
    faults
}
