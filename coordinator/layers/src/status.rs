//! Maps errors to gRPC statuses.

use tonic::Status;

use crate::Error;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Redis(_) | Error::Hindered(_) => Self::unavailable(error.to_string()),
            Error::Journal(journal) if journal.is_transient() => Self::unavailable(journal.to_string()),
            Error::Journal(_) | Error::Decode(_) => {
                tracing::error!(%error, cause = ?std::error::Error::source(&error), "the records of step results failed");
                Self::internal(error.to_string())
            }
        }
    }
}
