//! Propagates traces between processes: a span's context as W3C's `traceparent`.
//!
//! Invariant: spans have only their declared fields; log lines are not attached to them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

/// The header, and the key in W3C's format.
pub(crate) const HEADER: &str = "traceparent";
/// Maximum length of a header of any version.
const MAX_BYTES: usize = 256;

static ON: AtomicBool = AtomicBool::new(false);

/// Whether this process creates traces.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The layer that converts Kiln's own spans into a trace's.
pub(crate) fn layer<S>(provider: &SdkTracerProvider, name: &'static str) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    ON.store(true, Ordering::Relaxed);
    let ours = filter_fn(|metadata| {
        metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with("kiln")
    });
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(name))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
}

/// A span's context, for another process or a record; empty without tracing.
pub fn of(span: &Span) -> String {
    if !is_on() {
        return String::new();
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(HEADER).unwrap_or_default()
}

/// The current span's context.
pub fn current() -> String {
    of(&Span::current())
}

/// Makes a new span a child of the span with this context. An invalid context is ignored.
pub fn adopt(span: &Span, traceparent: &str) {
    if !is_on() || traceparent.is_empty() || traceparent.len() > MAX_BYTES {
        return;
    }
    let carrier = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid() {
        // Fails only for a span that has started, which these have not.
        let _ = span.set_parent(context);
    }
}

/// Adds the current span's context to calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Propagate;

impl Interceptor for Propagate {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if is_on()
            && let Ok(context) = MetadataValue::try_from(current())
            && !context.is_empty()
        {
            request.metadata_mut().insert(HEADER, context);
        }
        Ok(request)
    }
}

/// A client's channel whose calls carry the current span's context.
pub type Traced<S> = InterceptedService<S, Propagate>;

/// Makes a channel's calls carry the current span's context.
pub fn traced<S>(channel: S) -> Traced<S> {
    InterceptedService::new(channel, Propagate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    const CALLERS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn within<T>(work: impl FnOnce() -> T) -> T {
        let provider = SdkTracerProvider::builder().build();
        let subscriber = tracing_subscriber::registry().with(layer(&provider, "test"));
        tracing::subscriber::with_default(subscriber, work)
    }

    /// The trace of a context: its second part.
    fn trace_of(traceparent: &str) -> &str {
        traceparent.split('-').nth(1).unwrap_or_default()
    }

    #[test]
    fn a_span_that_is_adopted_is_in_its_caller_s_trace_and_so_is_what_is_below() {
        within(|| {
            let span = tracing::info_span!(parent: None, "adopted");
            adopt(&span, CALLERS);
            let below = span.in_scope(|| tracing::info_span!("below"));
            assert_eq!(trace_of(&of(&span)), trace_of(CALLERS));
            assert_eq!(trace_of(&of(&below)), trace_of(CALLERS));
            let mut request = below.in_scope(|| Propagate.call(tonic::Request::new(()))).expect("it refuses nothing");
            let sent = request.metadata_mut().remove(HEADER).expect("expected the call to carry a context");
            assert_eq!(sent.to_str().ok(), Some(of(&below).as_str()));
        });
    }

    #[test]
    fn what_is_no_context_is_left_alone() {
        let long = format!("{CALLERS}-{}", "x".repeat(300));
        for bad in ["", "x", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "\r\nevil: 1", &long] {
            within(|| {
                let span = tracing::info_span!(parent: None, "own");
                adopt(&span, bad);
                let own = of(&span);
                assert!(own.len() == CALLERS.len() && trace_of(&own) != trace_of(CALLERS), "{bad:?} gave {own}");
            });
        }
    }
}
