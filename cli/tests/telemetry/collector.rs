//! A receiver of traces: OTLP's trace service over gRPC, on a port of this machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

/// A span, and the service that it belongs to.
#[derive(Debug, Clone)]
pub struct Span {
    pub process: String,
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
}

/// A collector that runs until it is dropped.
pub struct Collector {
    pub url: String,
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    _runtime: tokio::runtime::Runtime,
}

struct Service(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(Service(received.clone()));
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
        );
        Self { url, received, _runtime: runtime }
    }

    /// Environment variables with which a process sends its spans here soon.
    pub fn variables(&self) -> Vec<(String, String)> {
        [("OTEL_EXPORTER_OTLP_ENDPOINT", self.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// All spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for request in self.received.lock().iter() {
            for of_process in &request.resource_spans {
                let resource = of_process.resource.clone().unwrap_or_default();
                let process = attributes(&resource.attributes).remove("service.name").unwrap_or_default();
                for span in of_process.scope_spans.iter().flat_map(|scope| &scope.spans) {
                    spans.push(Span {
                        process: process.clone(),
                        name: span.name.clone(),
                        trace: hex::encode(&span.trace_id),
                        id: hex::encode(&span.span_id),
                        parent: hex::encode(&span.parent_span_id),
                        attributes: attributes(&span.attributes),
                    });
                }
            }
        }
        spans
    }

    /// Everything that was received, as text: what is not in it was not sent.
    pub fn all(&self) -> String {
        format!("{:?}", self.received.lock())
    }
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        _ => String::new(),
    };
    list.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}
