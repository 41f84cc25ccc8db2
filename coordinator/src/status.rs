//! Errors on the wire: which gRPC status each one is.

use kiln_proto::{digest, resource_name};
use tonic::Status;

use crate::layers;

impl From<layers::Error> for Status {
    fn from(error: layers::Error) -> Self {
        match error {
            layers::Error::Store(error) => error.into(),
            layers::Error::Redis(_) | layers::Error::Hindered(_) | layers::Error::Stopping => {
                Self::unavailable(error.to_string())
            }
            layers::Error::Index(_) | layers::Error::Decode(_) => {
                tracing::error!(%error, cause = ?std::error::Error::source(&error), "the index of layers failed");
                Self::internal(error.to_string())
            }
        }
    }
}

/// A digest from a client that is none.
pub fn bad_digest(error: digest::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A resource name from a client that is none.
pub fn bad_resource_name(error: resource_name::Error) -> Status {
    Status::invalid_argument(error.to_string())
}
