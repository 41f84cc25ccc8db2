//! Errors of a farm, and whose fault they are.

use std::path::PathBuf;

use kiln_proto::{channel, transfer};
use tonic::Status;

/// Why a farm did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Channel(#[from] channel::Error),
    /// The service at the address is not a farm.
    #[error("no Kiln farm at `{url}`: {what}")]
    Stranger { url: String, what: String },
    /// The farm refused the request as invalid.
    #[error("{0}")]
    Refused(String),
    #[error("the farm at `{url}` failed: {}", words(.status))]
    Call { url: String, status: Box<Status> },
    #[error(
        "lost the farm at `{url}` while trying to {what} ({}); its builds continue when its coordinator is back: \
         see `kiln builds`",
        words(.status)
    )]
    Lost { url: String, what: &'static str, status: Box<Status> },
    #[error(
        "lost the connection to the farm at `{url}`, and the shell with it ({}); `kiln shell` opens another one, which begins anew",
        words(.status)
    )]
    Shell { url: String, status: Box<Status> },
    #[error("cannot move files between this machine and the farm")]
    Transfer(#[source] transfer::Error),
    #[error(
        "no farm given: this `kiln` is a client only; name a farm with `--farm URL` or `KILN_FARM`, and see `kiln up` for one of your own"
    )]
    Absent,
    #[error("the farm inside this command failed: {reason}")]
    Embedded { reason: String },
    /// A part of the farm of `kiln up`.
    #[error("{reason}")]
    Part { reason: String },
    #[error("cannot use `{}` for the farm inside this command; expected a writable directory", .path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A variable has an invalid value.
    #[error("{0}")]
    Variable(String),
    #[error("invalid response from the farm: {0}")]
    Answer(String),
}

impl From<transfer::Error> for Error {
    fn from(error: transfer::Error) -> Self {
        use tonic::Code::{PermissionDenied, Unauthenticated};
        match error {
            transfer::Error::Status(status) if matches!(status.code(), PermissionDenied | Unauthenticated) => {
                Self::Refused(status.message().to_owned())
            }
            other => Self::Transfer(other),
        }
    }
}

impl Error {
    /// Converts the status of a failed call to the farm at `url`.
    pub fn call(url: &str, status: Status) -> Self {
        use tonic::Code::{AlreadyExists, InvalidArgument, NotFound, OutOfRange, PermissionDenied, Unauthenticated};
        if let Some(reason) = channel::refusal(&status) {
            return Self::Channel(channel::Error::Refused { url: url.to_owned(), reason });
        }
        match status.code() {
            InvalidArgument | NotFound | AlreadyExists | OutOfRange | PermissionDenied | Unauthenticated => {
                Self::Refused(status.message().to_owned())
            }
            _ => Self::Call { url: url.to_owned(), status: Box::new(status) },
        }
    }

    /// Whose fault it is, as an exit code.
    pub fn code(&self) -> crate::Code {
        match self {
            Self::Channel(error) if error.is_away() => crate::Code::Farm,
            Self::Refused(_) | Self::Channel(_) | Self::Stranger { .. } | Self::Variable(_) | Self::Absent => {
                crate::Code::Usage
            }
            _ => crate::Code::Farm,
        }
    }
}

fn words(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    }
}
