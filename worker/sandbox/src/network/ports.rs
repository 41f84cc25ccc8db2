//! Ports of the machine's loopback that are reachable from a step's own network.

use std::fs;

use super::super::host::Host;
use super::super::spec::Source;

/// Largest configuration file that is searched for registries on the machine's loopback.
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;

/// Ports of the machine's loopback that its own configuration names: proxies, mirrors and registries. An action's own
/// settings do not count.
pub(in super::super) fn loopback_ports(host: &Host) -> Vec<u16> {
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
}
