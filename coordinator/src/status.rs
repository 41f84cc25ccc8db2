//! Maps errors to gRPC statuses.

use kiln_proto::{digest, resource_name};
use tonic::Status;

/// A client sent an invalid digest.
pub fn bad_digest(error: digest::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A client sent an invalid resource name.
pub fn bad_resource_name(error: resource_name::Error) -> Status {
    Status::invalid_argument(error.to_string())
}
