//! Which hosts may be contacted on behalf of someone else.
//!
//! Users who push an image from their own machine may reach whatever it reaches. A coordinator that fetches bases for
//! builders must not: a reference, a redirect or a realm could name a service that only the coordinator's network can
//! reach.
//!
//! Invariant: the address that is connected to is checked, rather than one that the name had a moment earlier. Only if
//! a proxy resolves the name and makes the connection, the name itself is checked.

mod address;
mod clients;
mod pattern;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::reference::DOCKER_HUB;
pub use clients::Clients;
pub use pattern::{Invalid, Pattern};

/// Domains that are never public: RFC 6761, 6762, 8375 and ICANN's reservation of `internal`.
const PRIVATE_DOMAINS: [&str; 6] = ["localhost", "local", "localdomain", "internal", "home.arpa", "lan"];
/// Docker Hub's hosts for its registry and its tokens.
const HUB: [&str; 2] = ["registry-1.docker.io", "auth.docker.io"];

/// Which hosts may be contacted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// `None`: any host that this machine reaches.
    bounds: Option<Arc<Bounds>>,
    kept: Arc<clients::Kept>,
}

#[derive(Debug)]
struct Bounds {
    allowed: Vec<Pattern>,
    proxies: Matcher,
}

/// Why a host is not contacted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not on the public internet.
    #[error("`{host}` is not a public address")]
    Private {
        /// Host and port.
        host: String,
    },
    /// A redirect from HTTPS to plain HTTP, or to something else.
    #[error("a redirect leads to `{scheme}:`")]
    Scheme {
        /// The target's scheme.
        scheme: String,
    },
}

/// How to request a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// With a client that connects to any address.
    Open,
    /// With a client that checks every address before connecting, and uses no proxy.
    Guarded,
}

impl Refused {
    /// Why a client of [`Clients`] did not connect, if that is the reason.
    pub fn of(error: &reqwest::Error) -> Option<&Self> {
        super::transport::cause(error)
    }
}

impl Reach {
    /// Any host that this machine reaches: for users acting for themselves.
    pub fn anywhere() -> Self {
        Self::default()
    }

    /// Public hosts, and those that the operator allows.
    pub fn public(allowed: Vec<Pattern>) -> Self {
        let bounds = Bounds { allowed, proxies: Matcher::from_env() };
        Self { bounds: Some(Arc::new(bounds)), kept: Arc::default() }
    }

    /// Whether there are any restrictions.
    pub(super) fn is_bounded(&self) -> bool {
        self.bounds.is_some()
    }

    /// Whether the operator allows this host, or everything is allowed.
    pub fn names(&self, url: &Url) -> bool {
        self.bounds.as_ref().is_none_or(|bounds| bounds.allows(url))
    }

    /// How `url` may be requested.
    ///
    /// # Errors
    /// If the URL itself is not allowed.
    pub(super) fn way(&self, url: &Url) -> Result<Way, Refused> {
        let Some(bounds) = &self.bounds else { return Ok(Way::Open) };
        if bounds.allows(url) {
            return Ok(Way::Open);
        }
        let refused = || Refused::Private { host: shown(url) };
        let proxy = url.as_str().parse().ok().and_then(|uri: http::Uri| bounds.proxies.intercept(&uri));
        match (url.host(), proxy) {
            (Some(Host::Ipv4(address)), _) if !bounds.may_connect(address.into()) => Err(refused()),
            (Some(Host::Ipv6(address)), _) if !bounds.may_connect(address.into()) => Err(refused()),
            (Some(_), None) => Ok(Way::Guarded),
            // The proxy resolves the name, and may have private names of its own.
            (Some(Host::Domain(name)), Some(proxy)) if is_private(name) || proxy.uri().host() == Some(name) => {
                Err(refused())
            }
            (Some(_), Some(_)) => Ok(Way::Open),
            (None, _) => Err(refused()),
        }
    }

    /// Whether a registry at `base` may refer a client to `realm` for a token: to itself, to a parent domain (as GitLab
    /// does), or to a host that the operator allows.
    pub(super) fn allows_realm(&self, base: &Url, realm: &Url) -> bool {
        let Some(bounds) = &self.bounds else { return true };
        let (Some(registry), Some(host)) = (base.host_str(), realm.host_str()) else { return false };
        let is_above = host.contains('.') && registry.strip_suffix(host).is_some_and(|rest| rest.ends_with('.'));
        let is_hub = HUB.contains(&registry) && HUB.contains(&host) || registry == DOCKER_HUB && HUB.contains(&host);
        registry == host || is_above && realm.domain().is_some() || is_hub || bounds.allows(realm)
    }

    /// Resolves names to allowed addresses; `None` without restrictions.
    fn resolver(&self) -> Option<Guard> {
        self.bounds.clone().map(Guard)
    }
}

impl Bounds {
    fn allows(&self, url: &Url) -> bool {
        self.allowed.iter().any(|pattern| pattern.matches(url))
    }

    fn may_connect(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|pattern| pattern.contains(address))
            || address::is_public(address) && !address::is_own(address)
    }
}

/// Host and port, as in a reference.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Names without a dot, and names below domains that are reserved for private use.
fn is_private(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_below =
        |domain: &&str| name.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.contains('.') || PRIVATE_DOMAINS.iter().any(is_below)
}

/// A resolver that returns only allowed addresses.
#[derive(Debug, Clone)]
struct Guard(Arc<Bounds>);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let bounds = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // If any address of a name is not allowed, the name is refused: which one is used is not known in advance.
            if found.iter().any(|address| !bounds.may_connect(address.ip())) {
                let refused = Refused::Private { host: name.as_str().to_owned() };
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(allowed: &[&str], url: &str) -> Result<Way, Refused> {
        way_by(Matcher::builder().build(), allowed, url)
    }

    fn way_by(proxies: Matcher, allowed: &[&str], url: &str) -> Result<Way, Refused> {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        let bounds = Bounds { allowed, proxies };
        Reach { bounds: Some(Arc::new(bounds)), ..Reach::default() }.way(&Url::parse(url).unwrap())
    }

    #[test]
    fn no_spelling_of_an_inner_address_is_asked() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "[::1]",
            "[::]",
            "0.0.0.0",
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b:1::a00:1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            "[fec0::1]",
            "[2001:db8::1]",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            let asked = way(&[], &format!("http://{host}:5000/v2/"));
            assert!(matches!(asked, Err(Refused::Private { .. })), "expected `{host}` to be refused: {asked:?}");
        }
    }

    #[test]
    fn public_addresses_are_asked_and_names_are_checked_where_they_are_looked_up() {
        for host in ["1.1.1.1", "[2606:4700::1111]", "[64:ff9b::101:101]", "registry.example", "localhost.example"] {
            assert_eq!(way(&[], &format!("https://{host}/v2/")), Ok(Way::Guarded), "{host}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_asked_and_nothing_beside_it() {
        let allowed = ["127.0.0.1:5000", "*.corp", "10.1.0.0/16", "[::1]", "registry"];
        for url in [
            "http://127.0.0.1:5000/",
            "https://a.b.corp:8443/",
            "http://10.1.2.3/",
            "http://[::1]:9/",
            "http://registry/",
        ] {
            assert!(way(&allowed, url).is_ok(), "expected `{url}` to be allowed");
        }
        for url in ["http://127.0.0.1:5001/", "http://10.2.2.3/", "http://[::2]/"] {
            assert!(way(&allowed, url).is_err(), "expected `{url}` to be refused");
        }
    }

    #[test]
    fn a_proxy_is_asked_for_no_name_of_the_inner_network() {
        let by_proxy = |allowed: &[&str], host: &str| {
            way_by(
                Matcher::builder().all("http://proxy.corp.example:3128").build(),
                allowed,
                &format!("https://{host}/v2/"),
            )
        };
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "registry",
            "registry.local",
            "metadata.google.internal",
            "10.0.0.1",
            "169.254.169.254",
            "[::ffff:a9fe:a9fe]",
            "proxy.corp.example",
        ] {
            assert!(by_proxy(&[], host).is_err(), "expected `{host}` to be refused");
        }
        assert_eq!(by_proxy(&[], "registry.example"), Ok(Way::Open));
        assert_eq!(by_proxy(&["registry.local"], "registry.local"), Ok(Way::Open));
    }

    #[test]
    fn a_realm_is_the_registrys_or_above_it_or_allowed() {
        let allows = |allowed: &[&str], base: &str, realm: &str| {
            let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
            Reach::public(allowed).allows_realm(&Url::parse(base).unwrap(), &Url::parse(realm).unwrap())
        };
        for (base, realm) in [
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ] {
            assert!(allows(&[], base, realm), "{base} -> {realm}");
        }
        let (base, realm) = ("https://registry.corp.example", "https://tokens.corp.example/jwt");
        assert!(!allows(&[], base, realm) && allows(&["tokens.corp.example"], base, realm));
        assert!(!allows(&[], "https://evil.example", "https://auth.docker.io/token"));
        assert!(!allows(&[], "https://10.0.0.1", "https://0.0.1/token"));
    }

    #[tokio::test]
    async fn a_name_that_means_this_machine_is_not_connected_to() {
        let guard = Reach::public(Vec::new()).resolver().unwrap();
        let Err(error) = guard.resolve("localhost".parse().unwrap()).await else { panic!("expected a refusal") };
        assert!(error.to_string().contains("not a public address"), "{error}");
        let allowed = Reach::public(vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
        assert!(allowed.resolver().unwrap().resolve("localhost".parse().unwrap()).await.is_ok());
    }
}
