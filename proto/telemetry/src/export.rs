//! Exports spans to a collector with OTLP over gRPC, configured by OpenTelemetry's variables.
//!
//! Invariant: an unavailable collector costs a process only its spans and one log line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::identity::{Error, Process};

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// Authorities that are trusted in place of the system's.
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
/// The client's certificate, and its key.
const CLIENT_CERTIFICATES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"];
const CLIENT_KEYS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];

/// TLS that trusts the system's authorities.
#[cfg(not(target_vendor = "apple"))]
pub fn tls_of_system() -> ClientTlsConfig {
    ClientTlsConfig::new().with_native_roots()
}

/// TLS that trusts the authorities that are files; see [`kiln_system::authorities`].
#[cfg(target_vendor = "apple")]
pub fn tls_of_system() -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(kiln_system::authorities()))
}

fn exporter() -> Result<SpanExporter, Error> {
    let exporter = SpanExporter::builder().with_tonic();
    let endpoint = ENDPOINTS.iter().find_map(|variable| set(variable)).unwrap_or_default();
    if endpoint.starts_with("https://") {
        // By itself it would speak TLS and trust nobody.
        return Ok(exporter.with_tls_config(tls()?).build()?);
    }
    Ok(exporter.build()?)
}

/// TLS as the environment wants it. The SDK does not read these variables for a configuration that it is given.
fn tls() -> Result<ClientTlsConfig, Error> {
    let tls = match file(&CERTIFICATES)? {
        Some((_, authorities)) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities)),
        None => tls_of_system(),
    };
    match (file(&CLIENT_CERTIFICATES)?, file(&CLIENT_KEYS)?) {
        (Some((_, certificate)), Some((_, key))) => Ok(tls.identity(Identity::from_pem(certificate, key))),
        (None, None) => Ok(tls),
        (Some((set, _)), None) => Err(Error::Half { set, unset: CLIENT_KEYS[1] }),
        (None, Some((set, _))) => Err(Error::Half { set, unset: CLIENT_CERTIFICATES[1] }),
    }
}

/// The file that the first of these variables names, with the variable.
fn file(variables: &[&'static str]) -> Result<Option<(&'static str, Vec<u8>)>, Error> {
    let named = variables.iter().find_map(|variable| Some((*variable, set(variable)?)));
    let Some((variable, path)) = named else { return Ok(None) };
    match std::fs::read(&path) {
        Ok(content) => Ok(Some((variable, content))),
        Err(source) => Err(Error::File { variable, path, source }),
    }
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
