//! A process's telemetry from its start to its end: what `main` does before all else, and after it.

use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::identity::{Error, FILTER, Process};
use crate::{Format, export, log, trace};

/// How long the last spans may take to be sent when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How a process tells of itself. Traces are configured by OpenTelemetry's own variables.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Format of the log on standard error.
    #[arg(long, env = "KILN_LOG_FORMAT", value_enum, default_value_t, global = true, value_name = "FORMAT")]
    pub log_format: Format,
}

/// A process's running telemetry.
#[derive(Debug)]
#[must_use = "what was not sent yet is lost without `stop`"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging, and tracing where the environment names a collector. To be called once, in a runtime of Tokio whose
    /// threads go on while [`stop`](Self::stop) is waited for.
    ///
    /// # Errors
    /// Where `KILN_LOG` or a variable of OpenTelemetry's says what cannot be done.
    pub fn start(process: &Process, options: &Options) -> Result<Self, Error> {
        let traces = export::from_environment(process)?;
        Self::with(process, options, traces)
    }

    /// Starts logging alone.
    ///
    /// # Errors
    /// Where `KILN_LOG` is no filter.
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
            // Where a test has one already, that one stays.
            let _ = tracing_subscriber::registry().with(lines.boxed()).with(spans).try_init();
        }
        Ok(Self { traces })
    }

    /// Sends what is left, for at most three seconds.
    pub async fn stop(self) {
        let Some(traces) = self.traces else { return };
        // It blocks, and the runtime's threads are needed for what is sent.
        let _ = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(LAST_WORDS)).await;
    }
}
