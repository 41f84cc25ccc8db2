//! Keeps steps with network access from the addresses where clouds serve a machine's credentials to anyone who asks.
//!
//! A step with network access may share the machine's network, whose firewall the worker must not change. So a small
//! BPF program checks where the processes of the step's control group connect and send to. This needs root and version
//! 2 control groups, which may be mounted next to version 1. Port 53 stays open, because two clouds have their name
//! server at the same address.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cgroup::{self, PREFIX};
use kiln_kernel::syscalls;

/// Link-local addresses cover AWS, Google, Azure, Oracle, OpenStack and DigitalOcean; then Alibaba's address, and
/// Azure's second one.
const V4: [([u8; 4], [u8; 4]); 3] =
    [([169, 254, 0, 0], [255, 255, 0, 0]), ([100, 100, 100, 200], [255; 4]), ([168, 63, 129, 16], [255; 4])];
/// AWS (its whole range for such services), Oracle, Google, OpenStack.
const V6: [([u16; 8], [u16; 8]); 4] = [
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], [0xffff, 0xffff, 0, 0, 0, 0, 0, 0]),
    ([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], [0xffff; 8]),
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], [0xffff; 8]),
    ([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], [0xffff; 8]),
];
/// The IPv4 networks, with their prefix lengths.
pub(super) fn v4() -> impl Iterator<Item = (Ipv4Addr, u8)> {
    let bits = |mask: [u8; 4]| u32::from_be_bytes(mask).leading_ones() as u8;
    V4.into_iter().map(move |(address, mask)| (address.into(), bits(mask)))
}

/// The IPv6 networks, with their prefix lengths.
pub(super) fn v6() -> impl Iterator<Item = (Ipv6Addr, u8)> {
    let bits = |mask: [u16; 8]| Ipv6Addr::from(mask).to_bits().leading_ones() as u8;
    V6.into_iter().map(move |(address, mask)| (address.into(), bits(mask)))
}

/// `enum bpf_attach_type`: `connect`, and `sendmsg` on unconnected sockets.
const PLACES_V4: [u32; 2] = [10, 14];
const PLACES_V6: [u32; 2] = [11, 15];
/// Offsets in `struct bpf_sock_addr`.
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;

/// The loaded programs, and the directory in which groups are created.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    base: PathBuf,
    programs: Arc<Vec<(u32, OwnedFd)>>,
}

/// A step's group; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Group(PathBuf);

impl Closed {
    /// Loads the programs and tries them on a group; `None` if the kernel does not allow it.
    pub(super) fn open() -> Option<Self> {
        let base = cgroup::own(None)?;
        let all = PLACES_V4.map(|place| (place, program(false))).into_iter();
        let all = all.chain(PLACES_V6.map(|place| (place, program(true))));
        let load = |(place, program): (u32, Vec<u64>)| Ok((place, syscalls::load_address_filter(&program, place)?));
        let programs = all.map(load).collect::<io::Result<Vec<_>>>();
        let programs = programs.inspect_err(|error| tracing::debug!(%error, "metadata addresses stay open")).ok()?;
        let closed = Self { base, programs: Arc::new(programs) };
        closed.group().ok()?;
        Some(closed)
    }

    /// Creates a group whose processes cannot reach those addresses.
    pub(super) fn group(&self) -> io::Result<Group> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = self.base.join(format!("{PREFIX}{}-closed-{number}", std::process::id()));
        fs::create_dir(&directory)?;
        let group = Group(directory);
        group.attach(self)?;
        Ok(group)
    }

    /// Blocks the addresses for an existing group.
    pub(super) fn attach(&self, directory: &Path) -> io::Result<()> {
        let directory = fs::File::open(directory)?;
        let attach =
            |(place, program): &(u32, OwnedFd)| syscalls::attach_to_group(directory.as_fd(), program.as_fd(), *place);
        self.programs.iter().try_for_each(attach)
    }
}

impl Group {
    fn attach(&self, closed: &Closed) -> io::Result<()> {
        closed.attach(&self.0)
    }

    /// Moves a process into the group; the processes it starts later are in it too.
    pub(super) fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        cgroup::remove_soon(std::mem::take(&mut self.0));
    }
}

/// One BPF instruction (`struct bpf_insn`), on registers 1 (the address) and 2.
fn op(code: u8, registers: u8, offset: i16, value: u32) -> u64 {
    u64::from(code) | u64::from(registers) << 8 | u64::from(offset as u16) << 16 | u64::from(value) << 32
}

/// Returns 0, which refuses, or 1.
fn answer(value: u32) -> [u64; 2] {
    [op(0xb7, 0, 0, value), op(0x95, 0, 0, 0)]
}

/// Loads a word of the address.
fn load(offset: i16) -> u64 {
    op(0x61, 0x12, offset, 0)
}

/// Refuses if every word, under its mask, has the given value.
fn refuse(words: &[(i16, u32, u32)]) -> Vec<u64> {
    let mut program = Vec::new();
    for (index, (offset, mask, value)) in words.iter().enumerate() {
        // The jump to the end of this rule: three instructions for each following word, and the answer.
        let rest = 3 * (words.len() - index - 1) + 2;
        program.extend([load(*offset), op(0x54, 0x02, 0, *mask), op(0x56, 0x02, rest as i16, *value)]);
    }
    program.extend(answer(0));
    program
}

/// A word as it lies in memory, in network byte order.
fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

fn words(address: [u16; 8], mask: [u16; 8]) -> Vec<(i16, u32, u32)> {
    let at = |of: &[u16; 8], index: usize| {
        let ([a, b], [c, d]) = (of[2 * index].to_be_bytes(), of[2 * index + 1].to_be_bytes());
        word([a, b, c, d])
    };
    let all = (0..4).map(|index| (USER_IP6 + 4 * index as i16, at(&mask, index), at(&address, index)));
    all.filter(|(_, mask, _)| *mask != 0).collect()
}

fn program(v6: bool) -> Vec<u64> {
    let mut program = vec![load(USER_PORT), op(0x56, 0x02, 2, u32::from(53_u16.to_be()))];
    program.extend(answer(1));
    for (address, mask) in V4 {
        let last = |offset| (offset, word(mask), word(address));
        if v6 {
            // The same address as dual-stack sockets use it: `::ffff:a.b.c.d`.
            let mut mapped =
                words([0, 0, 0, 0, 0, 0xffff, 0, 0], [0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0, 0]);
            mapped.push(last(USER_IP6 + 12));
            program.extend(refuse(&mapped));
        } else {
            program.extend(refuse(&[last(USER_IP4)]));
        }
    }
    if v6 {
        for (address, mask) in V6 {
            program.extend(refuse(&words(address, mask)));
        }
    }
    program.extend(answer(1));
    program
}
