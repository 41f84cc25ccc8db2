//! Metrics: whether webhooks are told.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    result: &'static str,
}

const RESULTS: [&str; 4] = ["delivered", "failed", "given_up", "refused"];

/// Metrics of calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NotifyMetrics {
    attempts: Family<Ended, Counter>,
    waiting: Gauge,
}

impl NotifyMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { attempts: Family::default(), waiting: Gauge::default() };
        // From the start, so that the first one counts as an increase.
        for result in RESULTS {
            drop(metrics.attempts.get_or_create(&Ended { result }));
        }
        let help = "Attempts to tell webhooks of the ends of builds, by result: `failed` is tried again";
        registry.register("notifications", help, metrics.attempts.clone());
        registry.register("notifications_waiting", "Webhooks that remain to be told", metrics.waiting.clone());
        metrics
    }

    /// An attempt ended like this.
    pub(crate) fn ended(&self, result: &'static str) {
        self.attempts.get_or_create(&Ended { result }).inc();
    }

    /// So many more calls wait.
    pub(crate) fn waiting(&self, more: i64) {
        self.waiting.inc_by(more);
    }
}
