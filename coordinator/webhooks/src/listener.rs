//! The HTTP listener for deliveries, over TLS or plain. The number of connections, in all and from one address, and
//! their duration are limited.
//!
//! HTTP/1 only: all forges speak it, and a client cannot start hundreds of calls on one connection.

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

/// Maximum concurrent connections.
const MAX_CONNECTIONS: usize = 64;
/// Maximum concurrent connections from one address.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 16;
/// Bytes of a request's header, and of what is read ahead of its body.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long a request's header may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last: forges open one for each delivery.
const WHOLE: Duration = Duration::from_secs(60);

/// Serves until `stopping`. Behind a proxy all connections come from one address, which may then use them all.
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
            // For example, if there are too many open files.
            Some(Err(_)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => return,
        };
        let Some(peer) = connection.peer() else { continue };
        let mut place = places.of(peer);
        if !place.take(1) {
            tracing::warn!("closed a connection: its address has reached the limit for webhooks");
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
                tracing::debug!(error, "a webhook connection ended");
            }
        });
    }
}
