//! Metrics: requests of each tool by what they asked for and how they ended, and the bytes of entries.

use kiln_dialects::Tool;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    tool: &'static str,
    request: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Moved {
    tool: &'static str,
    direction: &'static str,
}

/// Metrics of the caches of build tools. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ToolCacheMetrics {
    requests: Family<Asked, Counter>,
    bytes: Family<Moved, Counter>,
}

impl ToolCacheMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { requests: Family::default(), bytes: Family::default() };
        // From the start, so that the first one counts as an increase.
        for tool in Tool::ALL.map(Tool::name) {
            for (request, result) in [("get", "ok"), ("get", "missing"), ("put", "ok")] {
                drop(metrics.requests.get_or_create(&Asked { tool, request, result }));
            }
            for direction in ["in", "out"] {
                drop(metrics.bytes.get_or_create(&Moved { tool, direction }));
            }
        }
        let help = "Requests of build tools to their caches, by tool, request and result";
        registry.register("tool_cache_requests", help, metrics.requests.clone());
        let help = "Bytes of entries that build tools sent (in) and were sent (out)";
        registry.register("tool_cache_bytes", help, metrics.bytes.clone());
        metrics
    }

    /// A request ended with this HTTP status.
    pub(crate) fn answered(&self, tool: Tool, request: &'static str, status: u16) {
        let result = match status {
            100..=399 => "ok",
            404 => "missing",
            500..=599 => "failed",
            _ => "refused",
        };
        self.requests.get_or_create(&Asked { tool: tool.name(), request, result }).inc();
    }

    /// An entry's bytes arrived or are sent.
    pub(crate) fn moved(&self, tool: Tool, direction: &'static str, bytes: u64) {
        self.bytes.get_or_create(&Moved { tool: tool.name(), direction }).inc_by(bytes);
    }
}
