//! What the worker counts, and where that is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use kiln_proto::v1::lease_finished::Outcome;
use kiln_telemetry::scrape::{self, Subject};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::runner::Runner;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

const OUTCOMES: [&str; 4] = ["succeeded", "failed", "refused", "worker_fault"];

/// What is counted of leases, and whether there is a link. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    running: Gauge,
    ended: Family<Ended, Counter>,
    linked: Arc<AtomicBool>,
}

impl Tally {
    /// A lease began. It counts as running until the returned value is dropped.
    pub(crate) fn began(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// A lease ended so; the word that it is counted under.
    pub(crate) fn ended(&self, outcome: &Outcome) -> &'static str {
        let outcome = match outcome {
            Outcome::WorkerFault(_) => "worker_fault",
            Outcome::Response(response) if response.status.as_ref().is_some_and(|status| status.code != 0) => "refused",
            Outcome::Response(response) if response.result.as_ref().is_some_and(|result| result.exit_code != 0) => {
                "failed"
            }
            Outcome::Response(_) => "succeeded",
        };
        self.ended.get_or_create(&Ended { outcome }).inc();
        outcome
    }

    /// The coordinator has taken this worker, or is gone.
    pub(crate) fn linked(&self, is_linked: bool) {
        self.linked.store(is_linked, Ordering::Relaxed);
    }
}

/// A lease that is counted as running.
#[derive(Debug)]
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The listener, bound before anything else is done.
#[derive(Debug)]
pub(crate) struct Metrics {
    listener: TcpListener,
}

impl Metrics {
    /// Binds the listener.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot serve metrics on `{address}`"))?;
        Ok(Self { listener })
    }

    /// Serves until the process ends; not ready while there is no coordinator, nor once `stopping` is cancelled.
    pub(crate) fn serve(
        self,
        runner: Arc<Runner>,
        cache_capacity: u64,
        stopping: CancellationToken,
    ) -> anyhow::Result<()> {
        tracing::info!(address = %self.listener.local_addr()?, "metrics and health are served");
        let tally = runner.tally().clone();
        let mut registry = Registry::with_prefix("kiln_worker");
        // From the start, so that the first one counts as an increase.
        for outcome in OUTCOMES {
            drop(tally.ended.get_or_create(&Ended { outcome }));
        }
        registry.register("running_leases", "Leases that run", tally.running.clone());
        registry.register("leases", "Leases that ended, by outcome", tally.ended.clone());
        registry.register_collector(Box::new(Room { runner, cache_capacity }));
        tokio::spawn(async move {
            let subject = Arc::new(Worker { tally, stopping });
            if let Err(error) = scrape::serve(self.listener, registry, subject, std::future::pending()).await {
                tracing::error!(%error, "metrics and health are not served any more");
            }
        });
        Ok(())
    }
}

/// What the worker has room for, as it is at a scrape.
#[derive(Debug)]
struct Room {
    runner: Arc<Runner>,
    cache_capacity: u64,
}

impl Collector for Room {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let fetched = ConstCounter::new(self.runner.fetched_bytes());
        let help = "Bytes of input files that came from the farm";
        fetched.encode(encoder.encode_descriptor("input_bytes", help, None, fetched.metric_type())?)?;
        for (name, help, value) in [
            ("cache_bytes", "Bytes of cached inputs", self.runner.cache_bytes()),
            ("cache_capacity_bytes", "Most that they may be", self.cache_capacity),
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
        match (self.stopping.is_cancelled(), self.tally.linked.load(Ordering::Relaxed)) {
            (true, _) => Err("the worker stops".to_owned()),
            (false, false) => Err("there is no link to the coordinator".to_owned()),
            (false, true) => Ok(()),
        }
    }
}
