//! The coordinator's metrics, and the listener that serves them.
//!
//! Invariant: without `--metrics-listen` nothing is counted.

mod farm;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use kiln_telemetry::calls;
use kiln_telemetry::scrape::{self, Subject};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::seat::Seats;

use farm::View;
use kiln_builds::BuildMetrics;
use kiln_notify::NotifyMetrics;
use kiln_proto::v1;
use kiln_scheduler::Pool;
use kiln_toolcaches::ToolCacheMetrics;
pub use kiln_webhooks::WebhookMetrics;

/// All metrics, and their listener.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// The stores' metrics.
    pub(crate) store: kiln_store::Metrics,
    /// The gRPC services' metrics.
    pub(crate) calls: calls::Metrics,
    /// The builds' metrics.
    pub(crate) builds: BuildMetrics,
    /// The webhooks' metrics.
    pub(crate) webhooks: WebhookMetrics,
    /// The metrics of calls about the ends of builds.
    pub(crate) notify: NotifyMetrics,
    /// The metrics of the caches of build tools.
    pub(crate) tool_caches: ToolCacheMetrics,
    view: Arc<View>,
    registry: Registry,
    listener: TcpListener,
}

impl Metrics {
    /// Binds the listener.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot serve metrics on `{address}`"))?;
        let mut registry = Registry::with_prefix("kiln");
        let view = Arc::new(View::default());
        registry.register_collector(Box::new(view.clone()));
        Ok(Self {
            store: kiln_store::Metrics::register(&mut registry),
            calls: calls::Metrics::register(&mut registry),
            builds: BuildMetrics::register(&mut registry),
            webhooks: WebhookMetrics::register(&mut registry),
            notify: NotifyMetrics::register(&mut registry),
            tool_caches: ToolCacheMetrics::register(&mut registry),
            view,
            registry,
            listener,
        })
    }

    /// Serves until the process ends; reports not ready once `stopping` is cancelled.
    pub(crate) fn serve(
        self,
        seats: Seats,
        budget: Option<kiln_store::Budget>,
        pools: &[Pool],
        stopping: CancellationToken,
    ) -> anyhow::Result<()> {
        self.view.declare(pools);
        self.builds.declare(pools);
        tracing::info!(address = %self.listener.local_addr()?, "serving metrics and health");
        let subject = Arc::new(Coordinator { seats, budget, view: self.view, stopping });
        tokio::spawn(async move {
            if let Err(error) = scrape::serve(self.listener, self.registry, subject, std::future::pending()).await {
                tracing::error!(%error, "stopped serving metrics and health");
            }
        });
        Ok(())
    }
}

#[derive(Debug)]
struct Coordinator {
    seats: Seats,
    /// The limit on all tenants' blobs on disk.
    budget: Option<kiln_store::Budget>,
    view: Arc<View>,
    stopping: CancellationToken,
}

impl Coordinator {
    /// The farm's state, if this coordinator leads it.
    async fn farm(&self) -> Result<Option<v1::FarmStatus>, Status> {
        match self.seats.held() {
            Some(held) => held.term.execution().farm().await.map(Some),
            None => Ok(None),
        }
    }
}

#[tonic::async_trait]
impl Subject for Coordinator {
    async fn refresh(&self) {
        if let Ok(farm) = self.farm().await {
            self.view.leads(farm.is_some());
            let mut farm = farm.unwrap_or_default();
            if let Some((budget, capacity)) = self.budget.as_ref().and_then(|budget| Some((budget, budget.capacity()?)))
            {
                (farm.store_bytes, farm.store_capacity_bytes) = (budget.bytes(), capacity);
            }
            self.view.set(farm);
        }
    }

    async fn alive(&self) -> Result<(), String> {
        self.farm().await.map(drop).map_err(|status| status.message().to_owned())
    }

    async fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() { Err("the coordinator is stopping".to_owned()) } else { self.alive().await }
    }
}
