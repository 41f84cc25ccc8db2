//! The connection to one registry: HTTPS, with the authorities that this machine trusts for it; or plain HTTP where that is allowed.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client};

use super::{Error, Registries, lock};
use crate::reference::DOCKER_HUB;

/// Docker Hub answers under another name than its images have.
const HUB_HOST: &str = "registry-1.docker.io";
/// Where Docker keeps authorities of single registries.
const AUTHORITIES: &str = "/etc/docker/certs.d";
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How to speak to a registry.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) client: Client,
    /// Scheme, host and port.
    pub(super) base: String,
}

impl Registries {
    /// How to speak to a registry, found out at the first use.
    pub(super) async fn host(&self, registry: &str) -> Result<Host, Error> {
        if let Some(known) = lock(&self.inner.clients).get(registry) {
            return Ok(known.clone());
        }
        let client = client(registry)?;
        let name = if registry == DOCKER_HUB { HUB_HOST } else { registry };
        let mut host = Host { client, base: format!("https://{name}") };
        let may_be_plain = is_this_machine(registry) || self.inner.options.insecure.iter().any(|one| one == registry);
        if let Err(error) = self.probe(&host).await {
            let plain = Host { client: host.client.clone(), base: format!("http://{name}") };
            match failed(registry, &error) {
                error @ Error::Certificate { .. } => return Err(error),
                // Some answer a TLS greeting with words of HTTP, some hang up.
                _ if may_be_plain && self.probe(&plain).await.is_ok() => host = plain,
                error @ Error::PlainHttp { .. } => return Err(error),
                // What else is wrong is found by the request itself, which is tried again where that helps.
                _ => return Ok(host),
            }
        }
        lock(&self.inner.clients).insert(registry.to_owned(), host.clone());
        Ok(host)
    }

    async fn probe(&self, host: &Host) -> Result<(), reqwest::Error> {
        host.client.get(format!("{}/v2/", host.base)).timeout(self.inner.options.stall).send().await.map(|_| ())
    }
}

fn client(registry: &str) -> Result<Client, Error> {
    let unusable = |error: reqwest::Error| Error::Unreachable { registry: registry.to_owned(), reason: words(&error) };
    let mut builder = Client::builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .tcp_nodelay(true);
    let own = authorities(&Path::new(AUTHORITIES).join(registry));
    if !own.is_empty() {
        builder = builder.tls_certs_merge(own);
    }
    builder.build().map_err(unusable)
}

/// The `.crt` files of a directory that are certificates.
fn authorities(directory: &Path) -> Vec<Certificate> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let certificates = files.filter(|path| path.extension().is_some_and(|extension| extension == "crt"));
    certificates.filter_map(|path| Certificate::from_pem_bundle(&std::fs::read(path).ok()?).ok()).flatten().collect()
}

/// Whether a registry, as HOST or HOST:PORT, is on this machine: Docker speaks plain HTTP to these without being told.
pub fn is_this_machine(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What a request that got no answer means.
pub(super) fn failed(registry: &str, error: &reqwest::Error) -> Error {
    let registry = registry.to_owned();
    match tls_error(error) {
        // What comes is no TLS record: most likely HTTP.
        Some(rustls::Error::InvalidMessage(_)) => Error::PlainHttp { registry },
        Some(rustls::Error::InvalidCertificate(why)) => Error::Certificate { registry, reason: why.to_string() },
        Some(other) => Error::Unreachable { registry, reason: other.to_string() },
        None => Error::Unreachable { registry, reason: words(error) },
    }
}

fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| tls_error(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Why a request got no answer: the innermost cause, for the outer ones repeat the URL.
pub fn words(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_plain_without_being_named() {
        for here in ["localhost", "localhost:5000", "127.0.0.1:1", "127.8.8.8", "[::1]:5000"] {
            assert!(is_this_machine(here), "{here}");
        }
        for there in ["localhost.example", "10.0.0.1:5000", "[::2]", "registry.example:5000"] {
            assert!(!is_this_machine(there), "{there}");
        }
    }
}
