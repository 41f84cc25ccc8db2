//! A private network for a step with network access: its own loopback, and a way out through `pasta` or `slirp4netns`.
//!
//! Both programs (packages `passt` and `slirp4netns`) forward the step's connections from the machine's network. The
//! machine's firewall, routes and forwarding stay unchanged, and no root is needed. Invariants: nothing connects into a
//! step; of the machine itself a step reaches only those loopback ports that the machine's own proxy and registry
//! configuration names; and everything in [`closed`] is unreachable, whatever the protocol.

mod launch;
mod loopbacks;
mod ports;
mod slirp;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) use loopbacks::{Loopbacks, is_as_new};
pub(super) use ports::loopback_ports;

use super::metadata;
use kiln_kernel::userns;

/// If this process was started to connect a step's network, does that and never returns.
pub fn become_network_if_asked() {
    launch::become_launcher_if_asked();
    slirp::become_part_if_asked();
}

/// Whether steps with network access have their own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Isolation {
    /// If the machine can do it; otherwise they share the machine's.
    Auto,
    /// Always; the worker does not start if the machine cannot do it.
    Required,
    /// Never: they share the machine's.
    Off,
}

/// The name servers that a step uses: `pasta` forwards queries to the machine's. These are the dummy address of RFC
/// 7600 and one of the prefix that RFC 6666 discards everywhere else.
const NAMES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0x53))];

/// The program that forwards a step's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stack {
    Pasta,
    Slirp,
}

impl Stack {
    const ALL: [Self; 2] = [Self::Pasta, Self::Slirp];

    fn program(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp => "slirp4netns",
        }
    }
}

/// Creates networks for steps.
#[derive(Debug, Clone)]
pub(super) struct Networks {
    stack: Stack,
    program: PathBuf,
    init: PathBuf,
}

/// What a step's init waits for and what it blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// Default routes that appear once the network is connected.
    pub(super) v4: bool,
    pub(super) v6: bool,
    pub(super) closed: Vec<(IpAddr, u8)>,
    pub(super) resolver: String,
}

impl Networks {
    /// The programs that this machine can use, best first.
    ///
    /// # Errors
    /// What the machine lacks.
    pub(super) fn find(init: &Path) -> Result<Vec<Self>, String> {
        let of = |stack: Stack| Some(Self { stack, program: installed(stack.program())?, init: init.to_owned() });
        let found: Vec<Self> = Stack::ALL.into_iter().filter_map(of).collect();
        if found.is_empty() {
            return Err("neither `pasta` (package `passt`) nor `slirp4netns` is installed".to_owned());
        }
        let usable = |networks: &Self| {
            let plan = networks.plan();
            plan.v4 || plan.v6
        };
        let found: Vec<Self> = found.into_iter().filter(usable).collect();
        if found.is_empty() {
            return Err("the machine has no default route".to_owned());
        }
        if !userns::is_machine_root() && !launch::tun_is_public() {
            return Err("`/dev/net/tun` is missing or not open to every user; run `chmod 666 /dev/net/tun`".to_owned());
        }
        Ok(found)
    }

    /// The name of the program that connects the networks.
    pub(super) fn program(&self) -> &'static str {
        self.stack.program()
    }

    /// The plan for a network that is created now.
    pub(super) fn plan(&self) -> Plan {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (v4, v6) = defaults(&read("/proc/net/route"), &read("/proc/net/ipv6_route"));
        let mut closed = closed();
        closed.extend(own_addresses(&read("/proc/net/fib_trie"), &read("/proc/net/if_inet6")));
        let machine = read("/etc/resolv.conf");
        match self.stack {
            Stack::Pasta => Plan { v4, v6, closed, resolver: resolver(&machine, &forwarded(&machine)) },
            // Its IPv6 support is experimental.
            Stack::Slirp => {
                closed.retain(|(address, _)| address.is_ipv4());
                Plan { v4, v6: false, closed, resolver: resolver(&machine, &[slirp::NAMES]) }
            }
        }
    }

    /// The command that keeps the network of process `pid` connected for as long as it runs. `user`: the owner of the
    /// process's user namespace, unless it is this process's own user. `ports` of the machine's loopback appear on the
    /// step's.
    pub(super) fn connection(&self, pid: u32, user: Option<u32>, ports: &[u16]) -> Command {
        let mut command = match self.stack {
            Stack::Pasta => self.pasta(pid, user, ports),
            Stack::Slirp => slirp::connection(&self.init, &self.program, pid, user, ports),
        };
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn pasta(&self, pid: u32, user: Option<u32>, ports: &[u16]) -> Command {
        let mut command = match user {
            Some(user) => launch::by(&self.init, user, &self.program),
            None => Command::new(&self.program),
        };
        let ports = match ports {
            [] => "none".to_owned(),
            ports => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
        };
        command.args(["--quiet", "--foreground", "--config-net", "--no-map-gw"]);
        command.args(["--tcp-ports", "none", "--udp-ports", "none", "--udp-ns", "none", "--tcp-ns", &ports]);
        for address in forwarded(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()) {
            command.args(["--dns-forward", &address.to_string()]);
        }
        command.arg("--userns").arg(format!("/proc/{pid}/ns/user"));
        command.arg("--netns").arg(format!("/proc/{pid}/ns/net"));
        command
    }
}

/// The path of an installed program.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/local/bin", "/usr/bin", "/bin"]);
    directories.map(|directory| Path::new(directory).join(program)).find(|file| file.is_file())
}

/// Cloud metadata addresses, also as written by translators (NAT64, 6to4, Teredo, IPv4-compatible).
fn closed() -> Vec<(IpAddr, u8)> {
    let mut closed: Vec<(IpAddr, u8)> = Vec::new();
    for (address, bits) in metadata::v4() {
        let [a, b, c, d] = address.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        closed.push((address.into(), bits));
        for prefix in [[0x64, 0xff9b, 0, 0, 0, 0], [0x64, 0xff9b, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]] {
            let [p0, p1, p2, p3, p4, p5] = prefix;
            closed.push((Ipv6Addr::new(p0, p1, p2, p3, p4, p5, high, low).into(), 96 + bits));
        }
    }
    closed.extend(metadata::v6().map(|(address, bits)| (address.into(), bits)));
    // 6to4 and Teredo: no registry is reached through them any more.
    closed.push((Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0).into(), 16));
    closed.push((Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0).into(), 32));
    closed
}

/// The machine's own addresses, where its services would be reachable: the routing table `local` except the loopback.
fn own_addresses(trie: &str, inet6: &str) -> Vec<(IpAddr, u8)> {
    let mut own = Vec::new();
    let mut last = None;
    for line in trie.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL") {
            own.extend(last.filter(|address| !address.is_loopback()).map(|address| (address.into(), 32)));
        }
    }
    for line in inet6.lines() {
        let digits = line.split(' ').next().and_then(|digits| u128::from_str_radix(digits, 16).ok());
        let address = digits.map(Ipv6Addr::from_bits).filter(|address| !address.is_loopback());
        own.extend(address.map(|address| (address.into(), 128)));
    }
    own.sort();
    own.dedup();
    own
}

/// Whether there are default routes for IPv4 and IPv6.
fn defaults(route: &str, route6: &str) -> (bool, bool) {
    let v4 = route.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    let zero = "0".repeat(32);
    let is_default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [to, "00", .., device] if to == zero && device != "lo")
    };
    (v4, route6.lines().any(is_default))
}

/// Whether all these ports are listened at in this network.
pub(super) fn are_listened_at(ports: &[u16]) -> bool {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let found = listeners(&[read("/proc/net/tcp"), read("/proc/net/tcp6")].concat());
    ports.iter().all(|port| found.contains(port))
}

/// The ports of the listening sockets in `/proc/net/tcp` (proc(5)).
fn listeners(table: &str) -> Vec<u16> {
    let listener = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == "0A").then_some(port)
    };
    table.lines().filter_map(listener).collect()
}

pub(super) fn is_connected(v4: bool, v6: bool) -> bool {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (has_v4, has_v6) = defaults(&read("/proc/net/route"), &read("/proc/net/ipv6_route"));
    (has_v4 || !v4) && (has_v6 || !v6)
}

fn name_servers(configuration: &str) -> Vec<IpAddr> {
    let of = |line: &str| line.trim().strip_prefix("nameserver")?.trim().split('%').next()?.parse().ok();
    configuration.lines().filter_map(of).collect()
}

/// The addresses on which `pasta` takes DNS queries, of the families that the machine's name servers have.
fn forwarded(configuration: &str) -> Vec<IpAddr> {
    let servers = name_servers(configuration);
    let has = |address: &IpAddr| servers.iter().any(|server| server.is_ipv4() == address.is_ipv4());
    NAMES.into_iter().filter(has).collect()
}

/// A step's `resolv.conf`: the machine's, with these name servers.
fn resolver(configuration: &str, servers: &[IpAddr]) -> String {
    let mut text = String::new();
    for address in servers {
        text.push_str(&format!("nameserver {address}\n"));
    }
    for line in configuration.lines().filter(|line| !line.trim_start().starts_with("nameserver")) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_routes_of_the_machine_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.2.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        let inet6 = "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000002 04 40 00 80     eth0\n";
        let own: Vec<String> =
            own_addresses(trie, inet6).iter().map(|(address, bits)| format!("{address}/{bits}")).collect();
        assert_eq!(own, ["10.1.2.3/32", "fd00::2/128"]);
        let route = "Iface\tDestination\tGateway\neth0\t00000000\t0102000A\n";
        let zero = "0".repeat(32);
        let route6 =
            format!("{zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n");
        let nothing = format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n");
        assert_eq!((defaults(route, &route6), defaults("Iface\n", &nothing)), ((true, true), (false, false)));
    }

    #[test]
    fn listening_ports_are_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   0: 0100007F:1FBB 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100007F:1F90 0100007F:D431 01 00000000:00000000\n";
        assert_eq!(listeners(table), [0x1fbb]);
    }

    #[test]
    fn a_step_asks_the_machines_name_servers_by_way_of_pasta() {
        let machine = "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch corp.example\noptions ndots:2\n";
        assert_eq!(
            resolver(machine, &forwarded(machine)),
            "nameserver 192.0.0.8\n# by hand\nsearch corp.example\noptions ndots:2\n"
        );
        let v6 = "nameserver fe80::1%eth0\n";
        assert_eq!(resolver(v6, &forwarded(v6)), "nameserver 100::53\n");
    }
}
