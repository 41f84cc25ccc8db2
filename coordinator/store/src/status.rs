//! Maps the stores' errors to gRPC statuses.

use tonic::{Code, Status};

use crate::Error;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        use Error::{
            Abandoned, Closed, Corrupt, Crowded, Database, DiskFull, Full, Io, Locked, Mismatch, NotFound, OutOfRange,
            Redis, S3, S3Refused, TooLarge, TooLong,
        };
        let code = match &error {
            NotFound { .. } => Code::NotFound,
            Mismatch { .. } | TooLong { .. } => Code::InvalidArgument,
            OutOfRange { .. } => Code::OutOfRange,
            Corrupt { .. } => Code::DataLoss,
            Full { .. } | Crowded { .. } | DiskFull { .. } | TooLarge { .. } => Code::ResourceExhausted,
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
