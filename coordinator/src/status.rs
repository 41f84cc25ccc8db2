//! Errors on the wire: which gRPC status each one is.

use kiln_proto::{digest, resource_name};
use tonic::{Code, Status};

use crate::{layers, store};

impl From<store::Error> for Status {
    fn from(error: store::Error) -> Self {
        use store::Error::{
            Abandoned, Closed, Corrupt, Database, DiskFull, Full, Io, Locked, Mismatch, NotFound, OutOfRange, Redis,
            S3, S3Refused, TooLarge, TooLong,
        };
        let code = match &error {
            NotFound { .. } => Code::NotFound,
            Mismatch { .. } | TooLong { .. } => Code::InvalidArgument,
            OutOfRange { .. } => Code::OutOfRange,
            Corrupt { .. } => Code::DataLoss,
            Full { .. } | DiskFull { .. } | TooLarge { .. } => Code::ResourceExhausted,
            Abandoned { .. } => Code::Aborted,
            Closed | Locked { .. } | Redis(_) | S3 { .. } | S3Refused { .. } => Code::Unavailable,
            Io { .. } | Database { .. } => Code::Internal,
        };
        if matches!(code, Code::Internal | Code::DataLoss | Code::ResourceExhausted) {
            tracing::error!(%error, "a store failed");
        }
        Self::new(code, error.to_string())
    }
}

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
