//! A process's telemetry from start to end: `main` starts it first and stops it last.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::identity::{Error, Process};
use crate::{Format, export, log, trace};

/// Time limit for exporting the last spans when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Telemetry options. Traces are configured with OpenTelemetry's own variables.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Format of the log on standard error.
    #[arg(long, env = "KILN_LOG_FORMAT", value_enum, default_value_t, global = true, value_name = "FORMAT")]
    pub log_format: Format,
    /// Which lines are logged: a level, or levels of parts of the program, such as `info` or `warn,kiln_worker=debug`.
    #[arg(long, env = "KILN_LOG", global = true, value_name = "FILTER", value_parser = log::checked)]
    pub log: Option<String>,
}

/// A process's running telemetry.
#[must_use = "without `stop`, spans that were not exported yet are lost"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    filter: LogFilter,
}

/// The filter of a process's log, while it runs. Cheap to clone.
#[derive(Clone)]
pub struct LogFilter {
    process: Process,
    replace: Option<Arc<log::Replace>>,
}

impl LogFilter {
    /// Replaces it by what the options say now.
    pub fn reload(&self, options: &Options) {
        // The options were checked when they were read.
        if let (Some(replace), Ok(Some(filter))) = (&self.replace, filter(&self.process, options)) {
            replace(filter);
        }
    }
}

fn filter(process: &Process, options: &Options) -> Result<Option<EnvFilter>, Error> {
    let given = options.log.as_deref().map(log::filter).transpose()?.flatten();
    Ok(given.or_else(|| process.filter.map(EnvFilter::new)))
}

impl Telemetry {
    /// Starts logging, and tracing if the environment names a collector. Must be called once, in a Tokio runtime whose
    /// threads continue while [`stop`](Self::stop) is awaited.
    ///
    /// # Errors
    /// If the filter or an OpenTelemetry variable is invalid.
    pub fn start(process: &Process, options: &Options) -> Result<Self, Error> {
        let traces = export::from_environment(process)?;
        Self::with(process, options, traces)
    }

    /// Starts only logging.
    ///
    /// # Errors
    /// If the filter is invalid.
    pub fn without_traces(process: &Process, options: &Options) -> Result<Self, Error> {
        Self::with(process, options, None)
    }

    fn with(process: &Process, options: &Options, traces: Option<SdkTracerProvider>) -> Result<Self, Error> {
        let filter = filter(process, options)?;
        let spans = traces.as_ref().map(|provider| trace::layer(provider, process.name));
        let mut replace = None;
        // A process that neither logs nor traces has no subscriber at all.
        if filter.is_some() || spans.is_some() {
            let (lines, replacing) = filter.map(|filter| log::layer(options.log_format, filter)).unzip();
            // A subscriber that a test installed earlier is kept.
            let _ = tracing_subscriber::registry().with(lines.boxed()).with(spans).try_init();
            replace = replacing.map(Arc::new);
        }
        Ok(Self { traces, filter: LogFilter { process: *process, replace } })
    }

    /// The filter of the log, which may be replaced.
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Exports the remaining spans, for at most three seconds.
    pub async fn stop(self) {
        let Some(traces) = self.traces else { return };
        // It blocks, and the export needs the runtime's threads.
        let _ = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(LAST_WORDS)).await;
    }
}
