//! The HTTP listener for deliveries: over TLS or plain, for few connections at once, fewer of one address, and for none of them long.
//!
//! HTTP/1 alone: forges speak it, and no client may begin hundreds of calls on one connection.

use std::io;
use std::time::Duration;

use axum::{Extension, Router};
use futures::{Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use kiln_auth::connections::bounded;
use kiln_auth::peers::{Connection, Shares};
use kiln_auth::tls::{self, Served};

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Connections at once of one address.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 16;
/// Bytes of a request's head, and of what is read ahead of its body.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last: forges make one for each delivery.
const WHOLE: Duration = Duration::from_secs(60);

/// Serves until `stopping`. Behind a proxy all connections are of one address, and that may have all of them.
pub(super) async fn serve(
    listener: TcpListener,
    served: Option<watch::Receiver<Served>>,
    router: Router,
    is_behind_proxy: bool,
    stopping: CancellationToken,
) {
    let limit_source = "a fixed number for webhooks";
    let places =
        Shares::new(MAX_CONNECTIONS, if is_behind_proxy { MAX_CONNECTIONS } else { MAX_CONNECTIONS_PER_ADDRESS });
    match served {
        Some(served) => {
            take(bounded(tls::incoming(listener, served), MAX_CONNECTIONS, limit_source), router, places, stopping)
                .await
        }
        None => {
            take(bounded(TcpListenerStream::new(listener), MAX_CONNECTIONS, limit_source), router, places, stopping)
                .await
        }
    }
}

async fn take<C>(
    incoming: impl Stream<Item = io::Result<C>>,
    router: Router,
    places: Shares,
    stopping: CancellationToken,
) where
    C: Connection + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut incoming = std::pin::pin!(incoming);
    loop {
        let connection = tokio::select! {
            connection = incoming.next() => connection,
            () = stopping.cancelled() => return,
        };
        let connection = match connection {
            Some(Ok(connection)) => connection,
            // As where there are too many open files.
            Some(Err(_)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => return,
        };
        let Some(peer) = connection.peer() else { continue };
        let mut place = places.of(peer);
        if !place.take(1) {
            tracing::warn!("a connection was closed: its address has as many as one may have for webhooks");
            continue;
        }
        let service = TowerToHyperService::new(router.clone().layer(Extension(peer)));
        tokio::spawn(async move {
            let _place = place;
            let mut builder = Builder::new(TokioExecutor::new()).http1_only();
            let mut http = builder.http1();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD_BYTES);
            let served = builder.serve_connection(TokioIo::new(connection), service);
            if let Ok(Err(error)) = tokio::time::timeout(WHOLE, served).await {
                tracing::debug!(error, "a connection of a webhook ended");
            }
        });
    }
}
