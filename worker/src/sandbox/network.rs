//! A network of its own for a step that may reach the network: its own loopback, and a way out by `pasta`.
//!
//! `pasta` (package `passt`) speaks for the step from the machine's network, connection by connection, so nothing of the machine's
//! firewall, routes or forwarding changes, and no root is needed. Invariants: nobody connects into a step; a step reaches nothing of
//! the machine itself but the ports on its loopback that the machine's own configuration of proxies and registries names; and
//! what [`closed`] lists is unreachable whatever the protocol.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::host::Host;
use super::metadata;
use super::spec::Source;
use crate::userns;

/// Whether steps that may reach the network have one of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Isolation {
    /// Where the machine can do it, else they share the machine's.
    Auto,
    /// Or the worker does not start.
    Required,
    /// They share the machine's.
    Off,
}

/// The name under which this program starts to become `pasta`.
const LAUNCHER: &str = "kiln-sandbox-network";
/// Where a step asks for names: `pasta` passes that on to the machine's name server. The dummy address of RFC 7600, and one of the
/// prefix that RFC 6666 has discarded everywhere else.
const NAMES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0x53))];
/// Device of the interfaces that programs make (`Documentation/networking/tuntap.rst`).
const TUN: (u64, u64) = (10, 200);
/// Largest file of configuration that is searched for registries on the machine's loopback.
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;

/// What makes networks.
#[derive(Debug, Clone)]
pub(super) struct Networks {
    pasta: PathBuf,
    init: PathBuf,
}

/// What a step's init waits for and closes.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// Default routes that appear when it is connected.
    pub(super) v4: bool,
    pub(super) v6: bool,
    pub(super) closed: Vec<(IpAddr, u8)>,
    pub(super) resolver: String,
}

impl Networks {
    /// Finds `pasta`.
    ///
    /// # Errors
    /// In words, what the machine lacks.
    pub(super) fn find(init: &Path) -> Result<Self, String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let known = path
            .split(':')
            .chain(["/usr/local/bin", "/usr/bin", "/bin"])
            .map(|directory| Path::new(directory).join("pasta"));
        let pasta = known
            .into_iter()
            .find(|file| file.is_file())
            .ok_or("`pasta` is not installed: it is in the package `passt`")?;
        let networks = Self { pasta, init: init.to_owned() };
        let plan = networks.plan();
        if !plan.v4 && !plan.v6 {
            return Err("the machine has no default route".to_owned());
        }
        if !rustix::process::geteuid().is_root() && !tun_is_public() {
            return Err("`/dev/net/tun` is not there for every user: `chmod 666 /dev/net/tun`".to_owned());
        }
        Ok(networks)
    }

    /// How a network made now looks.
    pub(super) fn plan(&self) -> Plan {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (v4, v6) = defaults(&read("/proc/net/route"), &read("/proc/net/ipv6_route"));
        let mut closed = closed();
        closed.extend(own_addresses(&read("/proc/net/fib_trie"), &read("/proc/net/if_inet6")));
        Plan { v4, v6, closed, resolver: resolver(&read("/etc/resolv.conf")) }
    }

    /// The command that connects the network that a process is in, for as long as it runs. `user`: the owner of the process's user namespace, where that is not this process's
    /// own user. `ports` of the machine's loopback appear on the step's.
    pub(super) fn connection(&self, pid: u32, user: Option<u32>, ports: &[u16]) -> Command {
        let mut command = match user {
            Some(user) => {
                let mut command = Command::new(&self.init);
                command.arg0(LAUNCHER).arg(user.to_string()).arg(&self.pasta);
                command
            }
            None => Command::new(&self.pasta),
        };
        let ports = match ports {
            [] => "none".to_owned(),
            ports => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
        };
        command.args(["--quiet", "--foreground", "--config-net", "--no-map-gw"]);
        command.args(["--tcp-ports", "none", "--udp-ports", "none", "--udp-ns", "none", "--tcp-ns", &ports]);
        let servers = name_servers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        for address in NAMES.iter().filter(|address| servers.iter().any(|server| server.is_ipv4() == address.is_ipv4()))
        {
            command.args(["--dns-forward", &address.to_string()]);
        }
        command.arg("--userns").arg(format!("/proc/{pid}/ns/user"));
        command.arg("--netns").arg(format!("/proc/{pid}/ns/net"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

fn tun_is_public() -> bool {
    fs::metadata("/dev/net/tun").is_ok_and(|data| data.mode() & 0o006 == 0o006)
}

/// Where this process was started to become `pasta`, it does that and does not return.
pub(crate) fn become_network_if_asked() {
    let mut arguments = std::env::args_os();
    if arguments.next().is_none_or(|name| name != LAUNCHER) {
        return;
    }
    let user = arguments.next().and_then(|user| user.to_str()?.parse().ok());
    let (Some(user), Some(program)) = (user, arguments.next()) else { std::process::exit(2) };
    if let Err(error) = private_tun().and_then(|()| userns::become_user(user)) {
        eprintln!("cannot prepare a network: {error}");
        std::process::exit(1);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("cannot start pasta: {error}");
    std::process::exit(1);
}

/// Where only root may make interfaces, this process gets a device of its own for it, which nobody else sees.
fn private_tun() -> nix::Result<()> {
    if tun_is_public() {
        return Ok(());
    }
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let directory = Path::new("/dev/net");
    if !directory.is_dir() {
        fs::create_dir(directory).map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))?;
    }
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=0755"))?;
    let tun = directory.join("tun");
    mknod(&tun, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(TUN.0, TUN.1))?;
    let mode = fs::Permissions::from_mode(0o666);
    fs::set_permissions(&tun, mode).map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// Metadata addresses of clouds, also as translators (NAT64, 6to4, Teredo, IPv4-compatible) write them.
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
    // Nobody's way to a registry any more: 6to4, and Teredo.
    closed.push((Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0).into(), 16));
    closed.push((Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0).into(), 32));
    closed
}

/// Addresses of the machine, at which it would serve whoever reaches them: all of `local` but its loopback's.
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

/// Whether there are default routes, of either kind.
fn defaults(route: &str, route6: &str) -> (bool, bool) {
    let v4 = route.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    let zero = "0".repeat(32);
    let is_default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [to, "00", .., device] if to == zero && device != "lo")
    };
    (v4, route6.lines().any(is_default))
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

/// `resolv.conf` of a step: the machine's, with its name servers behind `pasta`.
fn resolver(configuration: &str) -> String {
    let servers = name_servers(configuration);
    let mut text = String::new();
    for address in NAMES.iter().filter(|address| servers.iter().any(|server| server.is_ipv4() == address.is_ipv4())) {
        text.push_str(&format!("nameserver {address}\n"));
    }
    for line in configuration.lines().filter(|line| !line.trim_start().starts_with("nameserver")) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Ports of the machine's loopback that its own configuration names: of proxies, mirrors and registries. What an action says of
/// itself is none of that.
pub(super) fn loopback_ports(host: &Host) -> Vec<u16> {
    let mut ports: Vec<u16> = host.network_environment.values().flat_map(|value| named_ports(value)).collect();
    for bind in &host.network_binds {
        let Source::Path(path) = &bind.from else { continue };
        let is_configuration =
            path.metadata().is_ok_and(|data| data.is_file() && data.len() <= MAX_CONFIGURATION_BYTES);
        if is_configuration && let Ok(text) = fs::read_to_string(path) {
            ports.extend(named_ports(&text));
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn named_ports(text: &str) -> Vec<u16> {
    let mut ports = Vec::new();
    for name in ["127.0.0.1", "localhost", "[::1]"] {
        for (at, _) in text.match_indices(name) {
            let before = text[..at].chars().next_back();
            let is_host = before.is_none_or(|c| !c.is_alphanumeric() && c != '.' && c != '-');
            let rest = text[at + name.len()..].strip_prefix(':').unwrap_or_default();
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            let scheme_port = || {
                let ends_here =
                    text[at + name.len()..].chars().next().is_none_or(|c| c == '/' || c.is_whitespace() || c == '"');
                let scheme = text[..at].rsplit_once("://").filter(|(_, user)| user.is_empty() || user.ends_with('@'));
                let scheme = scheme.filter(|_| ends_here)?.0;
                if scheme.ends_with("https") { Some(443) } else { scheme.ends_with("http").then_some(80) }
            };
            if is_host {
                ports.extend(digits.parse().ok().filter(|port| *port > 0).or_else(scheme_port));
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_loopback_are_read_from_what_configures_proxies_and_registries() {
        assert_eq!(named_ports("http://127.0.0.1:3128"), [3128]);
        assert_eq!(named_ports("localhost:8080"), [8080]);
        assert_eq!(named_ports("registry=http://user:pw@localhost:4873/npm\n//[::1]:99/x"), [4873, 99]);
        assert_eq!(named_ports("https://localhost/simple http://127.0.0.1/"), [80, 443]);
        for text in [
            "http://10.127.0.0.1:80",
            "localhost.example:80",
            "mylocalhost:80",
            "127.0.0.1",
            ".localhost,127.0.0.1,::1",
        ] {
            assert_eq!(named_ports(text), [] as [u16; 0], "{text}");
        }
    }

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
    fn a_step_asks_the_machines_name_servers_by_way_of_pasta() {
        let machine = "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch corp.example\noptions ndots:2\n";
        assert_eq!(resolver(machine), "nameserver 192.0.0.8\n# by hand\nsearch corp.example\noptions ndots:2\n");
        assert_eq!(resolver("nameserver fe80::1%eth0\n"), "nameserver 100::53\n");
    }
}
