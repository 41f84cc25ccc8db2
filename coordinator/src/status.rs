//! Errors on the wire: which gRPC status each one is.

use kiln_proto::{digest, resource_name};
use tonic::Status;

/// A digest from a client that is none.
pub fn bad_digest(error: digest::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A resource name from a client that is none.
pub fn bad_resource_name(error: resource_name::Error) -> Status {
    Status::invalid_argument(error.to_string())
}
