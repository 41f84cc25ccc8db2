//! A process's identity, and errors in the telemetry configuration.

use opentelemetry_otlp::ExporterBuildError;

/// A process's identity.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Its name in traces, unless `OTEL_SERVICE_NAME` is set.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The log filter if `--log` (`KILN_LOG`) is not set; `None` for no log.
    pub filter: Option<&'static str>,
}

/// Why the requested telemetry is unavailable.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid log filter: {0}; expected for example `info` or `warn,kiln_worker=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("`{variable}` is `{found}`; only `grpc` is supported, expected that or nothing")]
    Protocol { variable: &'static str, found: String },
    #[error("cannot export traces: {0}; see the `OTEL_EXPORTER_OTLP_…` variables")]
    Exporter(#[from] ExporterBuildError),
    #[error("cannot export traces: cannot read `{path}`, which `{variable}` names: {source}")]
    File { variable: &'static str, path: String, source: std::io::Error },
    #[error("cannot export traces: `{set}` is set and `{unset}` is not; a client's certificate needs both")]
    Half { set: &'static str, unset: &'static str },
}

impl Error {
    /// Whether it only concerns traces, so that the process could continue without.
    pub fn is_about_traces(&self) -> bool {
        !matches!(self, Self::Filter(_))
    }
}
