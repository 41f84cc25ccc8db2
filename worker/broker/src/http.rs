//! The port on a step's loopback at which its build tools find their caches.
//!
//! The listener is in the step's own network, so whoever can connect is that step, and there is no credential. Invariant: nothing of it
//! outlives the step, and a step has a bounded number of connections.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use kiln_executor::calls::Listening;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::toolcache::Caches;

/// Maximum number of connections of a step; others wait until one of them ends.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's header, and of what is read ahead of its body.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long a request's header may take, and a connection may be idle.
const HEAD: Duration = Duration::from_secs(60);
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves a step until it has ended.
pub(super) async fn serve(mut listening: Listening, caches: Caches) {
    let Some(listener) = listening.listener().await else { return };
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(listener, caches, &mut connections) => {}
        () = listening.over() => {}
    }
    // The listener is closed, and so is each connection before the step's network is given to another.
    connections.shutdown().await;
    drop(listening);
}

async fn accept(listener: TcpListener, caches: Caches, connections: &mut JoinSet<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "cannot serve the caches of a step's tools"),
    };
    let (router, room) = (caches.router(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection of a step's tool");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        connections.spawn(converse(stream, router.clone(), permit));
    }
}

async fn converse(stream: tokio::net::TcpStream, router: Router, permit: tokio::sync::OwnedSemaphorePermit) {
    // One request after another: a client cannot start hundreds on one connection.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    let mut http = builder.http1();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD_BYTES);
    // Who has nothing more to say, such as `nc`, still waits for the answer.
    http.half_close(true);
    let service = TowerToHyperService::new(router);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "a connection of a step's tool ended");
    }
    drop(permit);
}
