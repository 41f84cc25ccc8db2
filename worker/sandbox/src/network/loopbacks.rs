//! Networks that have nothing but a loopback, for jobs without network access: one job after another uses the same.
//!
//! To make a network namespace and to destroy it costs the kernel more than all other namespaces of a job together. A job that has no
//! capability in such a network can change nothing of it, so it is as new once the job's last process and socket are gone. Invariant: a
//! network in which a socket is left, such as one that waits for late packets, is never used again.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use kiln_kernel::syscalls;
use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;

/// Networks that are kept.
const MOST: usize = 64;

/// The networks that no job uses.
#[derive(Debug, Default)]
pub(in super::super) struct Loopbacks {
    free: Mutex<Vec<OwnedFd>>,
}

impl Loopbacks {
    /// A network for one job.
    pub(in super::super) fn take(&self) -> io::Result<OwnedFd> {
        let free = self.free.lock().pop();
        free.map_or_else(make, Ok)
    }

    /// Takes back a network in which no process is left and no socket was.
    pub(in super::super) fn put_back(&self, network: OwnedFd) {
        let mut free = self.free.lock();
        if free.len() < MOST {
            free.push(network);
        }
    }
}

fn make() -> io::Result<OwnedFd> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        syscalls::loopback_up()?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    };
    // A namespace belongs to a thread; this one ends, and the descriptor keeps the namespace.
    let made = std::thread::Builder::new().spawn(make)?;
    made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes a network panicked")))
}

/// Whether no socket but those of processes that still run is left in the network of this process, whose job has ended.
pub(in super::super) fn is_as_new(pid: u32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}"));
    match (read("sockstat"), read("sockstat6")) {
        (Ok(v4), Ok(v6)) => has_no_sockets(&v4) && has_no_sockets(&v6),
        // A kernel without IPv6.
        (Ok(v4), Err(error)) if error.kind() == io::ErrorKind::NotFound => has_no_sockets(&v4),
        _ => false,
    }
}

/// Reads `/proc/net/sockstat` and `sockstat6`. Memory and what is counted for the whole machine are no sockets here: `alloc`, and `orphan`, whose
/// sockets are `inuse` where they are (Linux, `net/ipv4/proc.c`).
fn has_no_sockets(text: &str) -> bool {
    let mut found = false;
    for line in text.lines().filter(|line| !line.starts_with("sockets:")) {
        let mut words = line.split_whitespace().skip(1);
        while let (Some(name), Some(count)) = (words.next(), words.next()) {
            if matches!(name, "inuse" | "tw") {
                found = true;
                if count != "0" {
                    return false;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::has_no_sockets;

    #[test]
    fn sockets_that_are_left_are_seen() {
        let new = "sockets: used 3\nTCP: inuse 0 orphan 0 tw 0 alloc 9 mem 2\nUDP: inuse 0 mem 1\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: \
                   inuse 0 memory 0\n";
        assert!(has_no_sockets(new));
        assert!(has_no_sockets(&new.replace("orphan 0", "orphan 1")), "expected others' sockets not to count");
        for (from, to) in [("tw 0", "tw 1"), ("TCP: inuse 0", "TCP: inuse 1"), ("UDP: inuse 0", "UDP: inuse 2")] {
            assert!(!has_no_sockets(&new.replace(from, to)), "{to}");
        }
        assert!(!has_no_sockets(""), "expected a file that cannot be read to say nothing");
    }
}
