//! Exports spans to a collector with OTLP over gRPC, configured by OpenTelemetry's variables.
//!
//! Invariant: an unavailable collector costs a process only its spans and one log line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tonic::transport::ClientTlsConfig;

use crate::identity::{Error, Process};

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// TLS that trusts the system's authorities.
#[cfg(not(target_vendor = "apple"))]
pub fn tls_of_system() -> ClientTlsConfig {
    ClientTlsConfig::new().with_native_roots()
}

/// TLS that trusts the authorities that are files; see [`kiln_system::authorities`].
#[cfg(target_vendor = "apple")]
pub fn tls_of_system() -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(tonic::transport::Certificate::from_pem(kiln_system::authorities()))
}

fn exporter() -> Result<SpanExporter, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_tonic();
    let endpoint = ENDPOINTS.iter().find_map(|variable| set(variable)).unwrap_or_default();
    if endpoint.starts_with("https://") {
        // By itself it would speak TLS and trust nobody.
        return exporter.with_tls_config(tls_of_system()).build();
    }
    exporter.build()
}

fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Whether the environment enables traces.
fn is_wanted() -> bool {
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let elsewhere = set("OTEL_TRACES_EXPORTER").is_some_and(|value| value != "otlp");
    ENDPOINTS.iter().any(|variable| set(variable).is_some()) && !disabled && !elsewhere
}

/// Creates the exporter, if the environment names a collector. The SDK reads sampling, batches, limits, headers and
/// timeouts from the environment.
pub(crate) fn from_environment(process: &Process) -> Result<Option<SdkTracerProvider>, Error> {
    if !is_wanted() {
        return Ok(None);
    }
    let protocol = PROTOCOLS.iter().find_map(|variable| Some((*variable, set(variable)?)));
    if let Some((variable, found)) = protocol.filter(|(_, found)| found != "grpc") {
        return Err(Error::Protocol { variable, found });
    }
    let exporter = WarningExporter { sender: exporter()?, has_warned: AtomicBool::new(false) };
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", process.version));
    let named = set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
    if set("OTEL_SERVICE_NAME").is_none() && !named {
        resource = resource.with_service_name(process.name);
    }
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build()))
}

/// Exports spans, and logs once when that starts to fail.
#[derive(Debug)]
struct WarningExporter {
    sender: SpanExporter,
    has_warned: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for WarningExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.sender.export(batch).await;
        match &result {
            Ok(()) => {
                if self.has_warned.swap(false, Ordering::Relaxed) {
                    tracing::info!("exporting traces again");
                }
            }
            Err(error) => {
                if !self.has_warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, spans = count, "cannot export traces; dropping them");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.sender.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.sender.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.sender.set_resource(resource);
    }
}
