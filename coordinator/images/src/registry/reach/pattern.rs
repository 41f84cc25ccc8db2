//! Operators' patterns for hosts: `host`, `host:port`, `*.domain`, an address or a block of addresses.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use url::{Host, Url};

/// Hosts that may be contacted although they are not public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// A host name.
    Named(String),
    /// All hosts below a domain.
    Below(String),
    /// Addresses, including those that a name resolves to.
    Within(IpNet),
}

/// An invalid pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a pattern for registries; expected HOST, HOST:PORT, `*.DOMAIN`, an address or a block such as `10.0.0.0/8`"
)]
pub struct Invalid(String);

impl Pattern {
    /// This machine and private networks, as patterns: the reach of someone who runs a farm for themselves.
    pub const LOCAL: [&str; 7] =
        ["localhost", "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

    /// The patterns in [`LOCAL`](Self::LOCAL).
    pub fn local() -> Vec<Self> {
        Self::LOCAL.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// Whether a URL is allowed as written, before any name is resolved.
    pub(super) fn matches(&self, url: &Url) -> bool {
        if self.port.is_some_and(|port| url.port_or_known_default() != Some(port)) {
            return false;
        }
        match (&self.hosts, url.host()) {
            (Hosts::Within(block), Some(Host::Ipv4(address))) => block.contains(&IpAddr::from(address)),
            (Hosts::Within(block), Some(Host::Ipv6(address))) => block.contains(&IpAddr::from(address)),
            (Hosts::Named(name), Some(Host::Domain(host))) => normal(host) == *name,
            (Hosts::Below(domain), Some(Host::Domain(host))) => {
                normal(host).strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            _ => false,
        }
    }

    /// Whether an address that a name resolved to is allowed; a pattern with a port only applies to URLs as written.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.port.is_none() && matches!(&self.hosts, Hosts::Within(block) if block.contains(&address))
    }
}

fn normal(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

impl FromStr for Pattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid(text.to_owned());
        if let Ok(block) = text.parse::<IpNet>() {
            return Ok(Self { hosts: Hosts::Within(block.trunc()), port: None });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { hosts: Hosts::Within(address.into()), port: None });
        }
        let (below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        if rest.is_empty() || rest.contains(['/', '@', '*', '?', '#', '\\']) || rest.contains(char::is_whitespace) {
            return Err(invalid());
        }
        // A scheme without a default port, so that `:443` is not lost.
        let url = Url::parse(&format!("kiln://{rest}")).map_err(|_| invalid())?;
        let host = url.host_str().ok_or_else(invalid)?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let hosts = match (address, below) {
            (Ok(address), false) => Hosts::Within(address.into()),
            (Ok(_), true) => return Err(invalid()),
            (Err(_), true) => Hosts::Below(normal(host)),
            (Err(_), false) => Hosts::Named(normal(host)),
        };
        Ok(Self { hosts, port: url.port() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_of_ones_own_reaches_the_networks_that_it_is_in() {
        assert_eq!(Pattern::local().len(), Pattern::LOCAL.len());
    }

    #[test]
    fn what_is_no_pattern_is_refused_in_words() {
        for bad in [
            "",
            "*",
            "*.",
            "https://registry.example",
            "registry.example/team",
            "*.10.0.0.1",
            "a b",
            "host:99999",
            "10.0.0.0/40",
        ] {
            let error = bad.parse::<Pattern>().expect_err(bad).to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }
}
