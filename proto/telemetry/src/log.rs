//! Logs to standard error: text for people, or one JSON object per line for programs.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, reload};

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line. `spans` contains the build, action and lease that a line belongs to.
    Json,
}

/// Replaces the filter of the lines.
pub(crate) type Replace = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// The layer that writes the lines that pass `filter`, and what replaces the filter.
pub(crate) fn layer<S>(format: Format, filter: EnvFilter) -> (Box<dyn Layer<S> + Send + Sync>, Replace)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        Format::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(true).with_filter(filter).boxed()
        }
    };
    // Without a subscriber, as after its end, there is nothing to filter.
    let replace = move |filter| drop(handle.reload(filter));
    (layer, Box::new(replace))
}

/// Parses a filter. Nothing is none.
pub(crate) fn filter(text: &str) -> Result<Option<EnvFilter>, tracing_subscriber::filter::ParseError> {
    if text.is_empty() { Ok(None) } else { EnvFilter::builder().parse(text).map(Some) }
}

/// Checks a filter for the command line.
pub(crate) fn checked(text: &str) -> Result<String, String> {
    match filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; expected for example `info` or `warn,kiln_worker=debug`")),
    }
}
