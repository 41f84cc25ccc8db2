//! What is counted of leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_proto::v1::lease_finished::Outcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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

    /// Has a registry show what is counted, outcomes that did not occur included.
    pub(crate) fn register(&self, registry: &mut Registry) {
        for outcome in OUTCOMES {
            drop(self.ended.get_or_create(&Ended { outcome }));
        }
        registry.register("running_leases", "Leases that run", self.running.clone());
        registry.register("leases", "Leases that ended, by outcome", self.ended.clone());
    }

    /// Whether there is a link.
    pub(crate) fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Relaxed)
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
