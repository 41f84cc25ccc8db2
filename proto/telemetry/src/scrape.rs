//! The HTTP listener for monitoring: `/metrics` in OpenMetrics' text format, `/healthz`, `/readyz`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// Time limit for the process to report its state.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A process that is monitored.
#[tonic::async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Updates values that are not counted as they change, before each scrape.
    async fn refresh(&self) {}

    /// Whether the process works at all, or why not. A failure leads to a restart.
    async fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether it accepts work, or why not. A failure redirects work elsewhere.
    async fn ready(&self) -> Result<(), String>;
}

struct Watched {
    registry: Registry,
    subject: Arc<dyn Subject>,
}

/// Serves on `listener` until `stop`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    subject: Arc<dyn Subject>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(Watched { registry, subject }));
    tokio::select! {
        result = axum::serve(listener, router) => result,
        () = stop => Ok(()),
    }
}

async fn metrics(State(watched): State<Arc<Watched>>) -> Response {
    if tokio::time::timeout(CHECK_TIMEOUT, watched.subject.refresh()).await.is_err() {
        return late();
    }
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &watched.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn healthz(State(watched): State<Arc<Watched>>) -> Response {
    verdict(tokio::time::timeout(CHECK_TIMEOUT, watched.subject.alive()).await.unwrap_or_else(|_| Err(words())))
}

async fn readyz(State(watched): State<Arc<Watched>>) -> Response {
    verdict(tokio::time::timeout(CHECK_TIMEOUT, watched.subject.ready()).await.unwrap_or_else(|_| Err(words())))
}

fn verdict(is_well: Result<(), String>) -> Response {
    match is_well {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

fn words() -> String {
    format!("no response within {} s", CHECK_TIMEOUT.as_secs())
}

fn late() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", words())).into_response()
}
