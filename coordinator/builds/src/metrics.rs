//! Metrics: how many builds there are, and how they end.

use std::time::Duration;

use kiln_proto::v1::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

const RESULTS: [&str; 4] = ["succeeded", "failed", "farm_failed", "cancelled"];

#[derive(Debug, Clone, Copy)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        // From a build that is all hits to one that takes all night.
        Histogram::new([0.2, 1.0, 5.0, 20.0, 60.0, 300.0, 1_200.0, 7_200.0, 36_000.0])
    }
}

/// Metrics of builds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BuildMetrics {
    running: Gauge,
    seconds: Family<Ended, Histogram, Seconds>,
    ended: Family<Ended, Counter>,
}

impl BuildMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            running: Gauge::default(),
            seconds: Family::new_with_constructor(Seconds),
            ended: Family::default(),
        };
        // From the start, so that the first build counts as an increase.
        for result in RESULTS {
            drop(metrics.ended.get_or_create(&Ended { result }));
        }
        registry.register("builds_running", "Builds in progress", metrics.running.clone());
        registry.register("builds", "Builds that ended, by result", metrics.ended.clone());
        registry.register("build_seconds", "Duration of a build", metrics.seconds.clone());
        metrics
    }

    /// A build started. It counts as running until the returned value is dropped.
    pub(crate) fn began(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// A build ended with this status after this time.
    pub(crate) fn ended(&self, status: Status, took: Duration) {
        let result = match status {
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
            Status::FarmFailed | Status::Running | Status::Unspecified => "farm_failed",
        };
        self.ended.get_or_create(&Ended { result }).inc();
        self.seconds.get_or_create(&Ended { result }).observe(took.as_secs_f64());
    }
}

/// A build that is counted as running.
#[derive(Debug)]
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
