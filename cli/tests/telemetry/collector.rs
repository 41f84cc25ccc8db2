//! A receiver of traces: OTLP's trace service over gRPC, on a port of this machine, in plain or over TLS.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use parking_lot::Mutex;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
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

/// Certificates as an operator makes them: an authority, and what it has issued to the collector and to a client of it.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("collector.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        std::fs::write(dir.path().join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        let run = |line: &str| {
            kiln_harness::output("openssl", &line.split(' ').collect::<Vec<_>>(), dir.path());
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        run(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
        for name in ["collector", "client"] {
            run(&format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            run(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
            ));
        }
        Self(dir)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

impl Collector {
    pub fn start() -> Self {
        Self::serve(tonic::transport::Server::builder(), "http")
    }

    /// One over TLS, which asks clients for certificates of the same authority.
    pub fn over_tls(certificates: &Certificates) -> Self {
        let own = Identity::from_pem(certificates.read("collector.pem"), certificates.read("collector.key"));
        let authority = Certificate::from_pem(certificates.read("ca.pem"));
        let tls = ServerTlsConfig::new().identity(own).client_ca_root(authority);
        Self::serve(tonic::transport::Server::builder().tls_config(tls).unwrap(), "https")
    }

    fn serve(mut server: tonic::transport::Server, scheme: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(Service(received.clone()));
        runtime.spawn(
            server.add_service(service).serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
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
