//! The worker's metrics, and the listener that serves them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use kiln_telemetry::scrape::{self, Subject};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::runner::Runner;
use crate::tally::Tally;

/// The listener, bound before anything else is done.
#[derive(Debug)]
pub(crate) struct Metrics {
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
        Ok(Self { listener })
    }

    /// Serves until the process ends. Not ready without a coordinator, nor once `stopping` is cancelled.
    pub(crate) fn serve(
        self,
        runner: Arc<Runner>,
        cache_capacity: u64,
        stopping: CancellationToken,
    ) -> anyhow::Result<()> {
        tracing::info!(address = %self.listener.local_addr()?, "serving metrics and health");
        let tally = runner.tally().clone();
        let mut registry = Registry::with_prefix("kiln_worker");
        // Registered at the start, so that the first event counts as an increase.
        tally.register(&mut registry);
        registry.register_collector(Box::new(Room { runner, cache_capacity }));
        tokio::spawn(async move {
            let subject = Arc::new(Worker { tally, stopping });
            if let Err(error) = scrape::serve(self.listener, registry, subject, std::future::pending()).await {
                tracing::error!(%error, "stopped serving metrics and health");
            }
        });
        Ok(())
    }
}

/// The worker's capacity, read at each scrape.
#[derive(Debug)]
struct Room {
    runner: Arc<Runner>,
    cache_capacity: u64,
}

impl Collector for Room {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let fetched = ConstCounter::new(self.runner.fetched_bytes());
        let help = "Bytes of input files fetched from the farm";
        fetched.encode(encoder.encode_descriptor("input_bytes", help, None, fetched.metric_type())?)?;
        for (name, help, value) in [
            ("cache_bytes", "Bytes of cached inputs", self.runner.cache_bytes()),
            ("cache_capacity_bytes", "Limit on these bytes", self.cache_capacity),
            ("disk_free_bytes", "Free bytes where actions run", self.runner.disk_free()),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Worker {
    tally: Tally,
    stopping: CancellationToken,
}

#[tonic::async_trait]
impl Subject for Worker {
    async fn ready(&self) -> Result<(), String> {
        match (self.stopping.is_cancelled(), self.tally.is_linked()) {
            (true, _) => Err("the worker is stopping".to_owned()),
            (false, false) => Err("no connection to the coordinator".to_owned()),
            (false, true) => Ok(()),
        }
    }
}
