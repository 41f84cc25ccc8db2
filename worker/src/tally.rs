//! Lease counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_broker::Calls;
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    result: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verified {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookedUp {
    tool: &'static str,
    result: &'static str,
}

/// Build tools that have caches inside steps.
const TOOLS: [&str; 6] = ["ccache", "go", "gradle", "nx", "sccache", "turbo"];
const VERDICTS: [&str; 4] = ["equal", "unreproducible", "wrong", "skipped"];
const OUTCOMES: [&str; 4] = ["succeeded", "failed", "refused", "worker_fault"];

/// Lease counters, and whether there is a connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    running: Gauge,
    ended: Family<Ended, Counter>,
    calls: Family<Called, Counter>,
    verified: Family<Verified, Counter>,
    tools: Family<LookedUp, Counter>,
    saved: Counter<f64, std::sync::atomic::AtomicU64>,
    linked: Arc<AtomicBool>,
}

impl Tally {
    /// Counts a lease as running until the returned value is dropped.
    pub(crate) fn began(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// Counts the end of a lease; returns the label of its outcome.
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

    /// Counts the compiler calls of a step.
    pub(crate) fn called(&self, calls: &Calls) {
        let count = |result, reason, count| {
            self.calls.get_or_create(&Called { result, reason }).inc_by(count);
        };
        count("hit", "", calls.hits);
        count("compiled", "", calls.compiled);
        count("elsewhere", "", calls.elsewhere);
        calls.refused.iter().for_each(|(reason, refused)| count("refused", reason, *refused));
        for (result, verified) in &calls.verified {
            self.verified.get_or_create(&Verified { result }).inc_by(*verified);
        }
        self.saved.inc_by(calls.saved.as_secs_f64());
        let others = calls.tools.iter().map(|(tool, (hits, misses))| (*tool, *hits, *misses));
        for (tool, hits, misses) in others.chain([("go", calls.go_hits, calls.go_misses)]) {
            self.tools.get_or_create(&LookedUp { tool, result: "hit" }).inc_by(hits);
            self.tools.get_or_create(&LookedUp { tool, result: "miss" }).inc_by(misses);
        }
    }

    /// Registers the counters, including those of outcomes that have not occurred.
    pub(crate) fn register(&self, registry: &mut Registry) {
        for outcome in OUTCOMES {
            drop(self.ended.get_or_create(&Ended { outcome }));
        }
        registry.register("running_leases", "Running leases", self.running.clone());
        registry.register("leases", "Ended leases, by outcome", self.ended.clone());
        for result in ["hit", "compiled", "elsewhere"] {
            drop(self.calls.get_or_create(&Called { result, reason: "" }));
        }
        registry.register("calls", "Compiler calls of steps, by result", self.calls.clone());
        for result in VERDICTS {
            drop(self.verified.get_or_create(&Verified { result }));
        }
        let verified = "Compiler calls whose result was known and that were compiled again, by what came of it";
        registry.register("calls_verified", verified, self.verified.clone());
        for (tool, result) in TOOLS.iter().flat_map(|tool| ["hit", "miss"].map(|result| (*tool, result))) {
            drop(self.tools.get_or_create(&LookedUp { tool, result }));
        }
        let tools = "Entries that build tools of steps asked for, by tool and result";
        registry.register("tool_cache_lookups", tools, self.tools.clone());
        let saved = "Seconds that calls whose result was known took when they ran";
        registry.register("calls_saved_seconds", saved, self.saved.clone());
    }

    /// Whether the worker is registered with a coordinator.
    pub(crate) fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Relaxed)
    }

    /// Records that the worker was registered, or that the connection ended.
    pub(crate) fn linked(&self, is_linked: bool) {
        self.linked.store(is_linked, Ordering::Relaxed);
    }
}

/// A lease counted as running.
#[derive(Debug)]
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
