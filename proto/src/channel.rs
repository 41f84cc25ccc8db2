//! Channels to a coordinator: one place that knows sizes, keepalives and TLS.

use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// Largest message that Kiln's servers and clients take, in bytes. Above REAPI's batch limit with room for the envelope.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A farm's address that is none, or that does not answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("`{url}` is no farm address; expected `http://HOST:PORT`, `https://HOST:PORT` or `grpc://HOST:PORT`")]
    Address { url: String },
    #[error("cannot reach the farm at `{url}`; is its coordinator running there?")]
    Connect {
        url: String,
        #[source]
        source: tonic::transport::Error,
    },
}

/// The endpoint for a farm's URL; `grpc` and `grpcs` are taken for `http` and `https`.
pub fn endpoint(url: &str) -> Result<Endpoint, Error> {
    let bad = || Error::Address { url: url.to_owned() };
    let normal = match url.split_once("://") {
        Some(("grpc", rest)) => format!("http://{rest}"),
        Some(("grpcs", rest)) => format!("https://{rest}"),
        Some(("http" | "https", _)) => url.to_owned(),
        Some(_) => return Err(bad()),
        None => format!("http://{url}"),
    };
    let tls = normal.starts_with("https://");
    let mut endpoint = Endpoint::from_shared(normal)
        .map_err(|_| bad())?
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024);
    if tls {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(|_| bad())?;
    }
    Ok(endpoint)
}

/// Connects, or says that nothing answers there.
pub async fn connect(url: &str) -> Result<Channel, Error> {
    endpoint(url)?.connect().await.map_err(|source| Error::Connect { url: url.to_owned(), source })
}
