//! Channels to a coordinator: the one place for message sizes, keepalives, TLS and credentials.
//!
//! Invariant: a token leaves this process only over TLS, or to this machine.

mod access;
mod addresses;
mod bearer;
mod dial;
mod health;
mod member;
mod pace;
mod refusal;
mod service;
mod several;
mod stranger;

use std::time::Duration;

use tonic::transport::{self, ClientTlsConfig, Endpoint, Uri};

pub use access::{Access, Error as AccessError, TokenPlace};
pub use addresses::{Error as AddressesError, addresses};
pub use bearer::Bearer;
pub use dial::{Dial, Stream};
pub use refusal::refusal;
pub use service::Channel;
pub use stranger::stranger;

/// Maximum message size of Kiln's servers and clients, in bytes: REAPI's batch limit plus the envelope.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Maximum size of a request of one message: the message, and what gRPC puts in front of it.
pub const MAX_REQUEST_BYTES: usize = MAX_MESSAGE_BYTES + 5;

/// Why a farm cannot be reached, or the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "invalid farm URL `{url}`; expected `http://HOST:PORT`, `https://HOST:PORT`, `grpc://HOST:PORT` or `unix:///PATH`"
    )]
    Address { url: String },
    #[error("cannot reach the farm at `{url}`; is its coordinator running there?")]
    Connect {
        url: String,
        #[source]
        source: transport::Error,
    },
    #[error(
        "the coordinator at `{url}` accepts connections but does not answer within {seconds} s; does it still run?"
    )]
    Silent { url: String, seconds: u64 },
    #[error("the coordinator at `{url}` cannot serve: {reason}")]
    Unhealthy { url: String, reason: String },
    #[error("no coordinator of the farm answers; {tried}")]
    Nobody { tried: String },
    #[error("cannot trust the farm at `{url}`: {reason}")]
    Refused { url: String, reason: String },
    #[error(transparent)]
    Addresses(#[from] AddressesError),
    #[error(transparent)]
    Access(#[from] access::Error),
    #[error("a token is not sent over plain HTTP to another machine; expected `https://…` instead of `{url}`")]
    Exposed { url: String },
}

impl Error {
    fn of_connection(url: &str, source: transport::Error) -> Self {
        match refusal(&source) {
            Some(reason) => Self::Refused { url: url.to_owned(), reason },
            None => Self::Connect { url: url.to_owned(), source },
        }
    }

    /// Why none of several coordinators can be used. A reason that will not pass comes first.
    fn of_all(mut failures: Vec<Self>) -> Self {
        if let Some(place) = failures.iter().position(|error| !error.is_away()) {
            return failures.swap_remove(place);
        }
        let tried: Vec<String> = failures.iter().map(|error| words(error)).collect();
        Self::Nobody { tried: tried.join("; ") }
    }

    /// Whether the farm does not answer at the moment, so that a retry may succeed.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Silent { .. } | Self::Unhealthy { .. } | Self::Nobody { .. })
    }
}

/// Whether clients can be configured with these addresses and credentials. Nothing is sent.
///
/// # Errors
/// What is wrong with one of them.
pub fn check(urls: &str, access: &Access) -> Result<(), Error> {
    addresses(urls)?.iter().try_for_each(|url| endpoint(url, access).map(drop))
}

/// Every coordinator of a farm that has several, and whether it answers; nothing of a farm that has one.
///
/// # Errors
/// If an address is invalid, or the credentials cannot be read.
pub async fn states(urls: &str, access: &Access) -> Result<Vec<(String, Result<(), Error>)>, Error> {
    match several::Several::find(urls, access, 0).await? {
        Some(several) => Ok(several.states().await),
        None => Ok(Vec::new()),
    }
}

/// A URL with the scheme that it means; `None` if there is no such scheme.
fn normal(url: &str) -> Option<String> {
    Some(match url.split_once("://") {
        Some(("grpc", rest)) => format!("http://{rest}"),
        Some(("grpcs", rest)) => format!("https://{rest}"),
        Some(("http" | "https" | "unix", _)) => url.to_owned(),
        Some(_) => return None,
        None => format!("http://{url}"),
    })
}

/// The token of each call to the coordinator at this address.
fn credentials(uri: &Uri, access: &Access) -> Result<Bearer, Error> {
    match crate::local::place(uri).filter(|_| !access.is_given()) {
        Some(place) => Ok(Bearer::local(place)),
        None => Ok(access.bearer()?),
    }
}

/// The endpoint for a coordinator's URL; `grpc` and `grpcs` mean `http` and `https`.
///
/// # Errors
/// If the URL is invalid, or the credentials cannot be read.
pub fn endpoint(url: &str, access: &Access) -> Result<Endpoint, Error> {
    let bad = || Error::Address { url: url.to_owned() };
    let normal = normal(url).ok_or_else(bad)?;
    let (is_tls, is_socket) = (normal.starts_with("https://"), normal.starts_with("unix://"));
    let mut endpoint = Endpoint::from_shared(normal)
        .map_err(|_| bad())?
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024);
    if is_tls {
        let mut tls = match access.authority()? {
            Some(authority) => ClientTlsConfig::new().ca_certificate(authority),
            None => kiln_telemetry::tls_of_system(),
        };
        if let Some(identity) = access.identity()? {
            tls = tls.identity(identity);
        }
        endpoint = endpoint.tls_config(tls).map_err(|source| access::Error::Certificate { reason: words(&source) })?;
    } else if access.has_token() && !is_socket && !is_this_machine(endpoint.uri().host().unwrap_or_default()) {
        return Err(Error::Exposed { url: url.to_owned() });
    }
    Ok(endpoint)
}

/// Connects to a farm at one address or at several, separated by commas. Credentials are read each time.
///
/// # Errors
/// As for [`endpoint`], and if no coordinator responds or is trusted.
pub async fn connect(url: &str, access: &Access) -> Result<Channel, Error> {
    Dial::new(url, access.clone()).connect().await
}

/// Whether traffic to a farm at this URL can be read on the network: plain HTTP to another machine.
pub fn is_exposed(urls: &str) -> bool {
    let is_exposed = |url: &String| {
        !url.starts_with("unix://")
            && endpoint(url, &Access::default()).is_ok_and(|to| {
                to.uri().scheme_str() != Some("https") && !is_this_machine(to.uri().host().unwrap_or_default())
            })
    };
    addresses(urls).is_ok_and(|urls| urls.iter().any(is_exposed))
}

pub(crate) fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_this_machine_or_over_tls_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "secret\n").unwrap();
        let access = Access { token_file: Some(file), ..Access::default() };
        for url in ["http://127.0.0.1:1", "grpc://localhost:1", "[::1]:1", "https://farm.example:1"] {
            assert!(endpoint(url, &access).is_ok() && !is_exposed(url), "expected `{url}` to be taken");
        }
        for url in ["http://farm.example:1", "10.0.0.1:1", "grpc://127.0.0.1.example:1"] {
            let refused = endpoint(url, &access).expect_err(url);
            assert!(matches!(refused, Error::Exposed { .. }), "{refused}");
            assert!(endpoint(url, &Access::default()).is_ok(), "expected `{url}` to do without a token");
            assert!(is_exposed(url), "expected `{url}` to be told from TLS and from this machine");
            let two = format!("http://127.0.0.1:2,{url}");
            assert!(is_exposed(&two) && check(&two, &access).is_err(), "expected `{two}` to expose a token");
        }
    }

    #[test]
    fn credentials_that_cannot_be_used_are_named() {
        let absent = || Some(std::path::PathBuf::from("/no/such/file"));
        let url = "https://farm.example:1";
        for (access, word) in [
            (Access { ca: absent(), ..Access::default() }, "/no/such/file"),
            (Access { cert: absent(), ..Access::default() }, "--key"),
            (Access { key: absent(), ..Access::default() }, "--cert"),
        ] {
            let refused = endpoint(url, &access).expect_err(word).to_string();
            assert!(refused.contains(word), "expected `{word}` in: {refused}");
        }
    }
}
