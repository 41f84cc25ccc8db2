//! The HTTP listener for deliveries: over TLS or plain, for few connections at once, and for none of them long.

use std::io;
use std::time::Duration;

use axum::Router;
use futures::{Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use crate::auth::tls::{self, Served};
use crate::services::connections::bounded;

/// Connections at once.
const MOST: usize = 64;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last: forges make one for each delivery.
const WHOLE: Duration = Duration::from_secs(60);

/// Serves until `stopping`.
pub(super) async fn serve(
    listener: TcpListener,
    served: Option<watch::Receiver<Served>>,
    router: Router,
    stopping: CancellationToken,
) {
    let said = "a fixed number for webhooks";
    match served {
        Some(served) => take(bounded(tls::incoming(listener, served), MOST, said), router, stopping).await,
        None => take(bounded(TcpListenerStream::new(listener), MOST, said), router, stopping).await,
    }
}

async fn take<C>(incoming: impl Stream<Item = io::Result<C>>, router: Router, stopping: CancellationToken)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
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
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
            let served = builder.serve_connection(TokioIo::new(connection), service);
            if let Ok(Err(error)) = tokio::time::timeout(WHOLE, served).await {
                tracing::debug!(error, "a connection of a webhook ended");
            }
        });
    }
}
