//! Refusals, as the stores cause them and the audit log names them.

use kiln_dialects::Refusal;
use kiln_store::Error;
use tonic::Code;

/// What a store's error means to a tool.
pub(crate) fn failed(error: Error) -> Refusal {
    match &error {
        error if error.is_absent() => Refusal::Missing,
        Error::Full { .. } | Error::Crowded { .. } | Error::DiskFull { .. } | Error::TooLarge { .. } => {
            tracing::warn!(%error, "an entry of a build tool was not stored");
            Refusal::Full(error.to_string())
        }
        Error::Mismatch { .. } | Error::TooLong { .. } => Refusal::Mismatch(error.to_string()),
        _ => {
            tracing::error!(%error, "a store failed");
            Refusal::Fault("the farm's store failed; see the coordinator's log".to_owned())
        }
    }
}

/// The outcome as the audit log names it.
pub(crate) fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Unknown | Refusal::Method => Code::Unimplemented,
        Refusal::Missing => Code::NotFound,
        Refusal::Malformed(_) | Refusal::Mismatch(_) => Code::InvalidArgument,
        Refusal::Unauthenticated(_) => Code::Unauthenticated,
        Refusal::Forbidden(_) | Refusal::ReadOnly(_) => Code::PermissionDenied,
        Refusal::Exists => Code::AlreadyExists,
        Refusal::TooLarge(_) | Refusal::Full(_) => Code::ResourceExhausted,
        Refusal::Interrupted(_) => Code::Cancelled,
        Refusal::Fault(_) => Code::Unavailable,
    }
}
