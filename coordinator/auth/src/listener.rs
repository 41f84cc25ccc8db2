//! A listener for HTTP beside gRPC, over TLS or plain, with as many connections as the coordinator's own.

use std::io;
use std::time::Duration;

use axum::{Extension, Router};
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::Accepted;
use crate::connections::bounded;
use crate::tls::{self, Served};

/// Bytes of a request's header, and of what is read ahead of its body.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long a request's header may take, and a connection may be idle.
const HEAD: Duration = Duration::from_secs(120);
/// Pause after the system refuses a connection, for example because of too many open files.
const PAUSE: Duration = Duration::from_millis(50);
/// How long requests may continue after a shutdown request.
const GRACE: Duration = Duration::from_secs(3);

/// Maximum concurrent requests on one connection of HTTP/2.
const MAX_STREAMS: u32 = 64;

/// Which versions of HTTP a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// Every tool speaks it, and a client cannot start hundreds of requests on one connection.
    Http1,
    /// What browsers choose from: with HTTP/2 the pages that follow something do not use up their connections.
    Both,
}

/// Serves until `stopping`, with at most `most` connections.
pub async fn serve(
    listener: TcpListener,
    served: Option<watch::Receiver<Served>>,
    router: Router,
    versions: Versions,
    most: usize,
    stopping: CancellationToken,
) {
    let incoming: BoxStream<'static, io::Result<Accepted>> = match served {
        Some(served) => tls::incoming(listener, served).map(|stream| stream.map(Accepted::tls)).boxed(),
        None => TcpListenerStream::new(listener)
            .map(|stream| {
                stream.map(|stream| {
                    let _ = stream.set_nodelay(true);
                    let address = stream.peer_addr().ok();
                    Accepted::plain(stream, address)
                })
            })
            .boxed(),
    };
    let mut incoming = std::pin::pin!(bounded(incoming, most, "`--max-connections`"));
    loop {
        let connection = tokio::select! {
            connection = incoming.next() => connection,
            () = stopping.cancelled() => return,
        };
        let connection = match connection {
            Some(Ok(connection)) => connection,
            Some(Err(_)) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            None => return,
        };
        let caller = connection.connect_info();
        let service = TowerToHyperService::new(router.clone().layer(Extension(caller)));
        let stopping = stopping.clone();
        tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            if versions == Versions::Http1 {
                builder = builder.http1_only();
            }
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).keep_alive_interval(HEAD);
            let mut http = builder.http1();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD_BYTES);
            let connection = builder.serve_connection(TokioIo::new(connection), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection ended");
            }
        });
    }
}
