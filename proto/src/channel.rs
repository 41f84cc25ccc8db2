//! Channels to a coordinator: the one place for message sizes, keepalives, TLS and credentials.
//!
//! Invariant: a token leaves this process only over TLS, or to this machine.

mod access;
mod bearer;
mod dial;
mod refusal;
mod stranger;

use std::time::Duration;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::{self, ClientTlsConfig, Endpoint};

pub use access::{Access, Error as AccessError, TokenPlace};
pub use bearer::Bearer;
pub use dial::{Dial, Stream};
pub use refusal::refusal;
pub use stranger::stranger;

/// Maximum message size of Kiln's servers and clients, in bytes: REAPI's batch limit plus the envelope.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A connection to a farm, whose every call carries the credentials.
pub type Channel = InterceptedService<transport::Channel, Bearer>;

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
    #[error("cannot trust the farm at `{url}`: {reason}")]
    Refused { url: String, reason: String },
    #[error(transparent)]
    Access(#[from] access::Error),
    #[error("a token is not sent over plain HTTP to another machine; expected `https://…` instead of `{url}`")]
    Exposed { url: String },
}

/// The endpoint for a farm's URL; `grpc` and `grpcs` mean `http` and `https`.
///
/// # Errors
/// If the URL is invalid, or the credentials cannot be read.
pub fn endpoint(url: &str, access: &Access) -> Result<Endpoint, Error> {
    let bad = || Error::Address { url: url.to_owned() };
    let normal = match url.split_once("://") {
        Some(("grpc", rest)) => format!("http://{rest}"),
        Some(("grpcs", rest)) => format!("https://{rest}"),
        Some(("http" | "https" | "unix", _)) => url.to_owned(),
        Some(_) => return Err(bad()),
        None => format!("http://{url}"),
    };
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

/// Connects. Credentials are read each time.
///
/// # Errors
/// As for [`endpoint`], and if the server does not respond or is not trusted.
pub async fn connect(url: &str, access: &Access) -> Result<Channel, Error> {
    Dial::new(url, access.clone()).connect().await
}

/// Whether traffic to a farm at this URL can be read on the network: plain HTTP to another machine.
pub fn is_exposed(url: &str) -> bool {
    !url.starts_with("unix://")
        && endpoint(url, &Access::default()).is_ok_and(|to| {
            to.uri().scheme_str() != Some("https") && !is_this_machine(to.uri().host().unwrap_or_default())
        })
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
