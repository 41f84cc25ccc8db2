//! Metrics: deliveries from forges, and whether forges accept commit statuses.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    answer: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    result: &'static str,
}

const ANSWERS: [&str; 4] = ["accepted", "ignored", "refused", "failed"];
const RESULTS: [&str; 2] = ["taken", "lost"];

/// Metrics of webhooks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookMetrics {
    deliveries: Family<Answered, Counter>,
    statuses: Family<Told, Counter>,
}

impl WebhookMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { deliveries: Family::default(), statuses: Family::default() };
        // From the start, so that the first one counts as an increase.
        for answer in ANSWERS {
            drop(metrics.deliveries.get_or_create(&Answered { answer }));
        }
        for result in RESULTS {
            drop(metrics.statuses.get_or_create(&Told { result }));
        }
        let help = "Webhook deliveries, by response code";
        registry.register("webhook_deliveries", help, metrics.deliveries.clone());
        let help = "Commit statuses sent to forges, by whether they were accepted";
        registry.register("webhook_statuses", help, metrics.statuses.clone());
        metrics
    }

    /// A delivery was answered with this HTTP code.
    pub(crate) fn answered(&self, code: u16) {
        let answer = match code {
            202 => "accepted",
            200..=299 => "ignored",
            500..=599 => "failed",
            _ => "refused",
        };
        self.deliveries.get_or_create(&Answered { answer }).inc();
    }

    /// A status was accepted by the forge, or given up.
    pub(crate) fn told(&self, is_taken: bool) {
        self.statuses.get_or_create(&Told { result: if is_taken { "taken" } else { "lost" } }).inc();
    }
}
