//! The connection to one registry: HTTPS with the authorities that this machine trusts for it, or plain HTTP if
//! allowed.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Method, Request, Response, StatusCode};
use url::Url;

use super::reach::{Clients, Reach, Refused};
use super::{Error, Registries, lock};
use crate::reference::DOCKER_HUB;

/// The host of Docker Hub's API, which differs from its images' names.
const HUB_HOST: &str = "registry-1.docker.io";
/// Where Docker stores authorities for individual registries.
const AUTHORITIES: &str = "/etc/docker/certs.d";
/// Time limit for connecting.
const CONNECT: Duration = Duration::from_secs(10);
/// Maximum number of consecutive redirects.
const REDIRECTS: usize = 10;

/// How to contact a registry.
#[derive(Debug, Clone)]
pub(super) struct Host {
    registry: String,
    /// Scheme, host and port.
    pub(super) base: String,
    clients: Clients,
}

impl Registries {
    /// How to contact a registry, determined at the first use.
    pub(super) async fn host(&self, registry: &str) -> Result<Host, Error> {
        if let Some(known) = lock(&self.inner.clients).get(registry) {
            return Ok(known.clone());
        }
        let name = if registry == DOCKER_HUB { HUB_HOST } else { registry };
        let mut host = Host::new(registry, format!("https://{name}"), &self.inner.options.reach)?;
        let may_be_plain = is_this_machine(registry) || self.inner.options.insecure.iter().any(|one| one == registry);
        if let Err(error) = self.probe(&host).await {
            let plain = Host { base: format!("http://{name}"), ..host.clone() };
            match error {
                error @ (Error::Certificate { .. } | Error::NotAllowed { .. }) => return Err(error),
                // Some servers answer a TLS greeting with HTTP, some close the connection.
                _ if may_be_plain && self.probe(&plain).await.is_ok() => host = plain,
                error @ Error::PlainHttp { .. } => return Err(error),
                // Other problems are found by the request itself, which is retried if that may help.
                _ => return Ok(host),
            }
        }
        lock(&self.inner.clients).insert(registry.to_owned(), host.clone());
        Ok(host)
    }

    async fn probe(&self, host: &Host) -> Result<(), Error> {
        let request = host.client().get(format!("{}/v2/", host.base)).timeout(self.inner.options.stall).build();
        host.execute(request.map_err(|error| failed(&host.registry, &error))?).await.map(|_| ())
    }
}

impl Host {
    fn new(registry: &str, base: String, reach: &Reach) -> Result<Self, Error> {
        let unusable =
            |error: reqwest::Error| Error::Unreachable { registry: registry.to_owned(), reason: words(&error) };
        let clients = Clients::named(reach, registry, || client(registry)).map_err(unusable)?;
        Ok(Self { registry: registry.to_owned(), base, clients })
    }

    /// Builds requests; [`execute`](Self::execute) sends them.
    pub(super) fn client(&self) -> &Client {
        self.clients.builder()
    }

    /// Whether a URL belongs to the registry, by scheme, host and port.
    pub(super) fn is_origin_of(&self, url: &Url) -> bool {
        Url::parse(&self.base).is_ok_and(|base| base.origin() == url.origin())
    }

    /// Whether the registry may refer its clients to this URL for a token.
    pub(super) fn allows_realm(&self, realm: &Url) -> bool {
        Url::parse(&self.base).is_ok_and(|base| self.clients.reach().allows_realm(&base, realm))
    }

    /// Sends a request if its URL is allowed, and follows redirects under the same rules; credentials are not forwarded
    /// to another service.
    pub(super) async fn execute(&self, request: Request) -> Result<Response, Error> {
        self.follow(request, |_, _| true).await
    }

    /// The same within one service, because the request's content is only meant for that. Any other redirect is
    /// returned as the response.
    pub(super) async fn execute_at_home(&self, request: Request) -> Result<Response, Error> {
        self.follow(request, |from, to| from.origin() == to.origin()).await
    }

    async fn follow(&self, mut request: Request, may: impl Fn(&Url, &Url) -> bool) -> Result<Response, Error> {
        for _ in 0..=REDIRECTS {
            let from = request.url().clone();
            let again = request.try_clone();
            let response = self.ask(request).await?;
            let Some((to, again)) = redirect(&response).zip(again).filter(|(to, _)| may(&from, to)) else {
                return Ok(response);
            };
            if !matches!(to.scheme(), "https" | "http") || from.scheme() == "https" && to.scheme() == "http" {
                return Err(self.refused(Refused::Scheme { scheme: to.scheme().to_owned() }));
            }
            let keeps = matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
            if !keeps && !matches!(*again.method(), Method::GET | Method::HEAD) {
                return Ok(response);
            }
            request = again;
            if to.origin() != from.origin() {
                request.headers_mut().remove(AUTHORIZATION);
            }
            *request.url_mut() = to;
        }
        let reason = format!("it redirects more than {REDIRECTS} times");
        Err(Error::Malformed { registry: self.registry.clone(), doing: "when it was asked", reason })
    }

    async fn ask(&self, request: Request) -> Result<Response, Error> {
        let client = self.clients.at(request.url()).map_err(|refused| self.refused(refused))?;
        client.execute(request).await.map_err(|error| failed(&self.registry, &error))
    }

    fn refused(&self, refused: Refused) -> Error {
        not_allowed(&self.registry, &refused)
    }
}

fn not_allowed(registry: &str, refused: &Refused) -> Error {
    let (registry, reason) = (registry.to_owned(), refused.to_string());
    match refused {
        Refused::Private { host } => Error::NotAllowed { registry, reason, allow: host.clone() },
        Refused::Scheme { .. } => Error::Malformed { registry, doing: "when it was asked", reason },
    }
}

/// The target of a redirect response.
fn redirect(response: &Response) -> Option<Url> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| is_redirect)?.to_str().ok()?;
    response.url().join(location).ok()
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    Broken(reqwest::Error),
    TooLong(usize),
}

impl Unread {
    pub(super) fn into_error(self, registry: &str, doing: &'static str) -> Error {
        match self {
            Self::Broken(error) => failed(registry, &error),
            Self::TooLong(most) => {
                let reason = format!("an answer of more than {most} bytes");
                Error::Malformed { registry: registry.to_owned(), doing, reason }
            }
        }
    }
}

/// Reads a body of at most `most` bytes, whatever its claimed length.
pub(super) async fn body(mut response: Response, most: usize) -> Result<Bytes, Unread> {
    let mut read = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(Unread::Broken)? {
        if read.len().saturating_add(piece.len()) > most {
            return Err(Unread::TooLong(most));
        }
        read.extend_from_slice(&piece);
    }
    Ok(read.freeze())
}

fn client(registry: &str) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .redirect(Policy::none());
    let own = authorities(&Path::new(AUTHORITIES).join(registry));
    if own.is_empty() { builder } else { builder.tls_certs_merge(own) }
}

/// The certificates in a directory's `.crt` files.
fn authorities(directory: &Path) -> Vec<Certificate> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let certificates = files.filter(|path| path.extension().is_some_and(|extension| extension == "crt"));
    certificates.filter_map(|path| Certificate::from_pem_bundle(&std::fs::read(path).ok()?).ok()).flatten().collect()
}

/// Whether a registry, as HOST or HOST:PORT, is on this machine: Docker uses plain HTTP for these by default.
pub fn is_this_machine(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Converts a failure without a response to an error.
pub(super) fn failed(registry: &str, error: &reqwest::Error) -> Error {
    if let Some(refused) = cause::<Refused>(error) {
        return not_allowed(registry, refused);
    }
    let registry = registry.to_owned();
    match cause::<rustls::Error>(error) {
        // The response is not a TLS record: most likely it is HTTP.
        Some(rustls::Error::InvalidMessage(_)) => Error::PlainHttp { registry },
        Some(rustls::Error::InvalidCertificate(why)) => Error::Certificate { registry, reason: why.to_string() },
        Some(other) => Error::Unreachable { registry, reason: other.to_string() },
        None => Error::Unreachable { registry, reason: words(error) },
    }
}

/// The cause of this type, at any depth.
pub(super) fn cause<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| cause::<T>(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Why a request got no response: the innermost cause, because the outer ones repeat the URL.
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
