//! Metrics: how many builds there are, how they end, and which workers they wait for.

use std::time::Duration;

use kiln_planner::plan::Platform;
use kiln_proto::property;
use kiln_proto::v1::{Reproduced, Reproducibility, Status};
use kiln_scheduler::Pool;
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

/// Workers that may come: of a platform, and of the first declared pool that fits, if any does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Awaited {
    isa: &'static str,
    pool: String,
}

const RESULTS: [&str; 4] = ["succeeded", "failed", "farm_failed", "cancelled"];

const REPRODUCED: [&str; 4] = ["same", "different", "different_network", "not_run"];

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
    waiting: Family<Awaited, Gauge>,
    reproduced: Family<Ended, Counter>,
}

impl BuildMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            running: Gauge::default(),
            seconds: Family::new_with_constructor(Seconds),
            ended: Family::default(),
            waiting: Family::default(),
            reproduced: Family::default(),
        };
        for platform in Platform::ALL {
            drop(metrics.waiting.get_or_create(&Awaited { isa: platform.isa(), pool: String::new() }));
        }
        // From the start, so that the first build counts as an increase.
        for result in RESULTS {
            drop(metrics.ended.get_or_create(&Ended { result }));
        }
        for result in REPRODUCED {
            drop(metrics.reproduced.get_or_create(&Ended { result }));
        }
        registry.register("builds_running", "Builds in progress", metrics.running.clone());
        registry.register("builds", "Builds that ended, by result", metrics.ended.clone());
        registry.register(
            "waiting_targets",
            "Targets that wait for a worker of theirs to join",
            metrics.waiting.clone(),
        );
        let words = "Steps that ran again to be compared, by what came of it";
        registry.register("steps_reproduced", words, metrics.reproduced.clone());
        registry.register("build_seconds", "Duration of a build", metrics.seconds.clone());
        metrics
    }

    /// A build started. It counts as running until the returned value is dropped.
    pub(crate) fn began(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// Counts for each of these pools from the start.
    pub fn declare(&self, pools: &[Pool]) {
        let of = |pool: &Pool, isa: &str| pool.properties.contains(&(property::ISA.to_owned(), isa.to_owned()));
        for pool in pools {
            for platform in Platform::ALL.into_iter().filter(|platform| of(pool, platform.isa())) {
                drop(self.waiting.get_or_create(&Awaited { isa: platform.isa(), pool: pool.name.clone() }));
            }
        }
    }

    /// A target waits for a worker of this platform, and of this pool if one is declared. It counts until the returned value is
    /// dropped. None of its actions is queued before there is such a worker, because what they are depends on the worker.
    pub(crate) fn waits(&self, platform: Platform, pool: Option<&str>) -> Running {
        let awaited = Awaited { isa: platform.isa(), pool: pool.unwrap_or_default().to_owned() };
        let waiting = self.waiting.get_or_create(&awaited).clone();
        waiting.inc();
        Running(waiting)
    }

    /// Steps ran again.
    pub(crate) fn compared(&self, found: &Reproducibility) {
        for step in &found.steps {
            let result = match step.outcome() {
                Reproduced::Same => "same",
                Reproduced::Different if step.network => "different_network",
                Reproduced::Different => "different",
                Reproduced::NotRun | Reproduced::Unspecified => "not_run",
            };
            self.reproduced.get_or_create(&Ended { result }).inc();
        }
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

/// A build that is counted as running, or a target as waiting.
#[derive(Debug)]
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
