//! A process's telemetry from start to end: `main` starts it first and stops it last.

use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::identity::{Error, FILTER, Process};
use crate::{Format, export, log, trace};

/// Time limit for exporting the last spans when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Telemetry options. Traces are configured with OpenTelemetry's own variables.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Format of the log on standard error.
    #[arg(long, env = "KILN_LOG_FORMAT", value_enum, default_value_t, global = true, value_name = "FORMAT")]
    pub log_format: Format,
}

/// A process's running telemetry.
#[derive(Debug)]
#[must_use = "without `stop`, spans that were not exported yet are lost"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging, and tracing if the environment names a collector. Must be called once, in a Tokio runtime whose
    /// threads continue while [`stop`](Self::stop) is awaited.
    ///
    /// # Errors
    /// If `KILN_LOG` or an OpenTelemetry variable is invalid.
    pub fn start(process: &Process, options: &Options) -> Result<Self, Error> {
        let traces = export::from_environment(process)?;
        Self::with(process, options, traces)
    }

    /// Starts only logging.
    ///
    /// # Errors
    /// If `KILN_LOG` is not a valid filter.
    pub fn without_traces(process: &Process, options: &Options) -> Result<Self, Error> {
        Self::with(process, options, None)
    }

    fn with(process: &Process, options: &Options, traces: Option<SdkTracerProvider>) -> Result<Self, Error> {
        let filter = match std::env::var(FILTER).ok().filter(|filter| !filter.is_empty()) {
            Some(filter) => Some(EnvFilter::builder().parse(filter)?),
            None => process.filter.map(EnvFilter::new),
        };
        let spans = traces.as_ref().map(|provider| trace::layer(provider, process.name));
        // A process that neither logs nor traces has no subscriber at all.
        if filter.is_some() || spans.is_some() {
            let lines = filter.map(|filter| log::layer(options.log_format, filter));
            // A subscriber that a test installed earlier is kept.
            let _ = tracing_subscriber::registry().with(lines.boxed()).with(spans).try_init();
        }
        Ok(Self { traces })
    }

    /// Exports the remaining spans, for at most three seconds.
    pub async fn stop(self) {
        let Some(traces) = self.traces else { return };
        // It blocks, and the export needs the runtime's threads.
        let _ = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(LAST_WORDS)).await;
    }
}
