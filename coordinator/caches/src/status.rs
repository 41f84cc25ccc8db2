//! Maps errors to gRPC statuses.

use tonic::Status;

use crate::Error;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Missing(_) => Self::failed_precondition(error.to_string()),
            Error::Refused(_) => Self::invalid_argument(error.to_string()),
            Error::TooLarge { .. } => Self::resource_exhausted(error.to_string()),
            Error::Journal(journal) if journal.is_transient() => Self::unavailable(journal.to_string()),
            Error::Journal(_) | Error::Decode(_) => {
                tracing::error!(%error, cause = ?std::error::Error::source(&error), "the records of cache mounts failed");
                Self::internal(error.to_string())
            }
        }
    }
}
