//! Standard gRPC services: health for load balancers, and reflection for calls by hand.

use kiln_proto::descriptors;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

/// The health service, which reports all services as serving.
pub async fn serving() -> (HealthReporter, HealthServer<impl Health>) {
    let (reporter, server) = tonic_health::server::health_reporter();
    set(&reporter, ServingStatus::Serving).await;
    (reporter, server)
}

/// Reports all services as not serving.
pub async fn stopping(reporter: &HealthReporter) {
    set(reporter, ServingStatus::NotServing).await;
}

/// The methods of these services.
///
/// # Errors
/// As [`reflection`].
pub fn methods() -> Result<Vec<String>, prost::DecodeError> {
    let mut paths = descriptors::methods_of(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
    paths.extend(descriptors::methods_of(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)?);
    Ok(paths)
}

/// The server as a whole has the empty name.
async fn set(reporter: &HealthReporter, status: ServingStatus) {
    for service in descriptors::services().into_iter().chain([String::new()]) {
        reporter.set_service_status(service, status).await;
    }
}

/// Reflection of Kiln's own services and of health. Remote Execution's services have no descriptors (see
/// [`descriptors`]).
///
/// # Errors
/// If a descriptor set is invalid, which cannot happen in a correct build of this program.
pub fn reflection() -> Result<ServerReflectionServer<impl ServerReflection>, tonic_reflection::server::Error> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors::KILN)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}
