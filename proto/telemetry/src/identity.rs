//! Who tells, and what can be wrong with how it is asked to.

use opentelemetry_otlp::ExporterBuildError;

/// What the log says, as `tracing_subscriber` reads it.
pub(crate) const FILTER: &str = "KILN_LOG";

/// Who tells.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Its name in traces, where `OTEL_SERVICE_NAME` gives no other.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What is logged where `KILN_LOG` is not set; nothing where this is `None`.
    pub filter: Option<&'static str>,
}

/// Telemetry that was asked for and cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid filter in `{FILTER}`: {0}; expected for example `info` or `warn,kiln_worker=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("`{variable}` is `{found}`; traces are sent with `grpc` only, expected that or nothing")]
    Protocol { variable: &'static str, found: String },
    #[error("traces cannot be sent: {0}; see the `OTEL_EXPORTER_OTLP_…` variables")]
    Exporter(#[from] ExporterBuildError),
}

impl Error {
    /// Whether it is about traces, and the process could do without.
    pub fn is_about_traces(&self) -> bool {
        matches!(self, Self::Protocol { .. } | Self::Exporter(_))
    }
}
