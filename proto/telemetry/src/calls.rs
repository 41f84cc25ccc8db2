//! A server's gRPC calls: a span for each that belongs to a trace, and metrics of their number, duration and bytes.
//!
//! Invariant: only registered methods are named here; anything else that a client calls is `unknown`.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use http_body_util::BodyExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::trace;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// A method, as a metric label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    service: Arc<str>,
    method: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    service: Arc<str>,
    method: Arc<str>,
    code: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        // From an answer out of memory to a whole build.
        Histogram::new([0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0, 300.0])
    }
}

/// Metrics of calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    finished: Family<Outcome, Counter>,
    seconds: Family<Method, Histogram, Seconds>,
    received: Family<Method, Counter>,
    sent: Family<Method, Counter>,
}

impl Metrics {
    /// Registers the metrics with `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            finished: Family::default(),
            seconds: Family::new_with_constructor(Seconds),
            received: Family::default(),
            sent: Family::default(),
        };
        registry.register("grpc_calls", "Ended gRPC calls, by method and code", metrics.finished.clone());
        registry.register("grpc_call_seconds", "Time from a call's start to its end", metrics.seconds.clone());
        registry.register("grpc_received_bytes", "Bytes of messages from clients", metrics.received.clone());
        registry.register("grpc_sent_bytes", "Bytes of messages to clients", metrics.sent.clone());
        metrics
    }
}

/// A method's metrics, looked up at its first call rather than at each.
#[derive(Debug)]
struct Known {
    method: Method,
    counts: OnceLock<Counts>,
}

#[derive(Debug)]
struct Counts {
    received: Counter,
    sent: Counter,
    seconds: Histogram,
    /// By gRPC code.
    codes: [OnceLock<Counter>; CODES],
}

/// gRPC's codes range from 0 to 16.
const CODES: usize = 17;

impl Known {
    fn new(method: Method) -> Arc<Self> {
        Arc::new(Self { method, counts: OnceLock::new() })
    }

    fn counts(&self, metrics: &Metrics) -> &Counts {
        self.counts.get_or_init(|| Counts {
            received: metrics.received.get_or_create_owned(&self.method),
            sent: metrics.sent.get_or_create_owned(&self.method),
            seconds: metrics.seconds.get_or_create_owned(&self.method),
            codes: Default::default(),
        })
    }

    fn ended(&self, metrics: &Metrics, code: Code, took: f64) {
        let counts = self.counts(metrics);
        counts.seconds.observe(took);
        let Method { service, method } = &self.method;
        let outcome = || Outcome { service: service.clone(), method: method.clone(), code: name(code) };
        if let Some(counter) = counts.codes.get(code as usize) {
            counter.get_or_init(|| metrics.finished.get_or_create_owned(&outcome())).inc();
        }
    }
}

/// The registered methods, and how their calls are observed.
#[derive(Debug)]
struct Shared {
    methods: HashMap<String, Arc<Known>>,
    unknown: Arc<Known>,
    /// Methods that start a trace if the caller has none.
    begins: Vec<&'static str>,
    metrics: Option<Metrics>,
}

/// Observes the calls of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls {
    shared: Arc<Shared>,
}

impl Calls {
    /// `methods` are paths such as `/kiln.v1.Builds/Submit`; those in `begins` are traced even if their caller is not.
    pub fn new(methods: impl IntoIterator<Item = String>, begins: &[&'static str], metrics: Option<Metrics>) -> Self {
        let method = |path: &str| {
            let (service, method) = path.trim_start_matches('/').split_once('/')?;
            Some(Method { service: service.into(), method: method.into() })
        };
        let methods = methods.into_iter().filter_map(|path| Some((path.clone(), Known::new(method(&path)?)))).collect();
        let unknown = Known::new(Method { service: "unknown".into(), method: "unknown".into() });
        Self { shared: Arc::new(Shared { methods, unknown, begins: begins.to_vec(), metrics }) }
    }
}

impl<S> tower::Layer<S> for Calls {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, calls: self.clone() }
    }
}

/// A service whose calls are observed.
#[derive(Debug, Clone)]
pub struct Watched<S> {
    inner: S,
    calls: Calls,
}

impl<S> tower::Service<Request> for Watched<S>
where
    S: tower::Service<Request, Response = Response>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(call) = Call::begin(&self.calls.shared, &request) else { return Box::pin(self.inner.call(request)) };
        let received = call.counts().map(|counts| counts.received.clone());
        let request = match received {
            Some(received) => request.map(|body| counted(body, received)),
            None => request,
        };
        let span = call.span.clone();
        let answer = span.in_scope(|| self.inner.call(request));
        Box::pin(async move { Ok(call.follow(answer.await?)) }.instrument(span))
    }
}

fn counted(body: Body, bytes: Counter) -> Body {
    Body::new(body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            bytes.inc_by(data.len() as u64);
        }
        frame
    }))
}

/// A call in progress, which ends on drop: without a code, its client has left.
#[derive(Debug)]
struct Call {
    shared: Arc<Shared>,
    known: Arc<Known>,
    began: Instant,
    span: Span,
    code: Option<Code>,
}

impl Call {
    /// `None` if the call is neither traced nor counted.
    fn begin(shared: &Arc<Shared>, request: &Request) -> Option<Self> {
        if shared.metrics.is_none() && !trace::is_on() {
            return None;
        }
        let path = request.uri().path();
        let known = shared.methods.get(path).unwrap_or(&shared.unknown).clone();
        let span = span(shared, path, &known.method, request.headers());
        Some(Self { shared: shared.clone(), known, began: Instant::now(), span, code: None })
    }

    fn counts(&self) -> Option<&Counts> {
        self.shared.metrics.as_ref().map(|metrics| self.known.counts(metrics))
    }

    /// Observes the response to its end.
    fn follow(mut self, response: Response) -> Response {
        self.look_for_code(response.headers());
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(trailers) = frame.trailers_ref() {
                    self.look_for_code(trailers);
                }
                if let (Some(data), Some(counts)) = (frame.data_ref(), self.counts()) {
                    counts.sent.inc_by(data.len() as u64);
                }
                frame
            }))
        })
    }

    fn look_for_code(&mut self, headers: &http::HeaderMap) {
        self.code = Status::from_header_map(headers).map(|status| status.code()).or(self.code);
    }
}

/// The span of a call that belongs to a trace.
fn span(shared: &Shared, path: &str, method: &Method, headers: &http::HeaderMap) -> Span {
    let parent = headers.get(trace::HEADER).and_then(|value| value.to_str().ok());
    if !trace::is_on() || (parent.is_none() && !shared.begins.contains(&path)) {
        return Span::none();
    }
    let span = tracing::info_span!(
        parent: None,
        "call",
        otel.name = format!("{}/{}", method.service, method.method),
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = &*method.service,
        rpc.method = &*method.method,
        rpc.grpc.status_code = Empty,
    );
    trace::adopt(&span, parent.unwrap_or_default());
    span
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        self.span.record("rpc.grpc.status_code", code as i32);
        if is_servers_fault(code) {
            self.span.record("otel.status_code", "ERROR");
        }
        if let Some(metrics) = &self.shared.metrics {
            self.known.ended(metrics, code, self.began.elapsed().as_secs_f64());
        }
    }
}

/// Codes that mark a server's span as an error, according to OpenTelemetry's conventions for gRPC.
fn is_servers_fault(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

/// A code's name in gRPC.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
