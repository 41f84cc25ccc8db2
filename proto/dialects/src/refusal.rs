//! Why a request is not carried out, and the status that makes each tool carry on as well as it can.
//!
//! Gradle uses no remote cache for the rest of a build after most statuses, but takes 413 for an entry that is too large
//! and goes on; Nx takes 403 for a token that may only read; Turborepo gives up its cache on a 403 that names a reason
//! beginning with `remote_caching_`. All others report what they cannot store and go on.

use axum::http::StatusCode;

use crate::tool::Tool;

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No tool, or no address of this tool.
    Unknown,
    /// The entry is not there.
    Missing,
    /// The method is not one of this tool.
    Method,
    /// The request is malformed.
    Malformed(String),
    /// The caller is not known.
    Unauthenticated(String),
    /// The caller may not do this, nor read.
    Forbidden(String),
    /// The caller may read, but not write.
    ReadOnly(String),
    /// The entry exists, and this tool never replaces one.
    Exists,
    /// The body is larger than allowed.
    TooLarge(String),
    /// There is no room for the entry.
    Full(String),
    /// The body is not what was announced.
    Mismatch(String),
    /// The body took too long, or was cut off.
    Interrupted(String),
    /// The farm failed.
    Fault(String),
}

impl Refusal {
    /// The status for this tool.
    pub fn status(&self, tool: Tool) -> StatusCode {
        match (self, tool) {
            (Self::Unknown | Self::Missing, _) => StatusCode::NOT_FOUND,
            (Self::Method, _) => StatusCode::METHOD_NOT_ALLOWED,
            (Self::Malformed(_) | Self::Mismatch(_), _) => StatusCode::BAD_REQUEST,
            (Self::Unauthenticated(_), _) => StatusCode::UNAUTHORIZED,
            (Self::ReadOnly(_) | Self::TooLarge(_) | Self::Full(_), Tool::Gradle) => StatusCode::PAYLOAD_TOO_LARGE,
            (Self::ReadOnly(_) | Self::TooLarge(_) | Self::Full(_), Tool::Nx) => StatusCode::FORBIDDEN,
            (Self::Forbidden(_) | Self::ReadOnly(_), _) => StatusCode::FORBIDDEN,
            (Self::Exists, _) => StatusCode::CONFLICT,
            (Self::TooLarge(_), _) => StatusCode::PAYLOAD_TOO_LARGE,
            (Self::Full(_), _) => StatusCode::INSUFFICIENT_STORAGE,
            (Self::Interrupted(_), _) => StatusCode::REQUEST_TIMEOUT,
            (Self::Fault(_), _) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What is said to the caller.
    pub fn words(&self) -> String {
        match self {
            Self::Unknown => {
                "no cache is served at this address; `kiln cache env TOOL` prints a tool's settings".to_owned()
            }
            Self::Missing => "no such entry is cached".to_owned(),
            Self::Method => "this cache does not know the method".to_owned(),
            Self::Exists => "the entry exists, and is never replaced".to_owned(),
            Self::Malformed(words)
            | Self::Unauthenticated(words)
            | Self::Forbidden(words)
            | Self::ReadOnly(words)
            | Self::TooLarge(words)
            | Self::Full(words)
            | Self::Mismatch(words)
            | Self::Interrupted(words)
            | Self::Fault(words) => words.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_goes_on_with_a_token_that_may_only_read_and_with_a_full_store() {
        let status = |refusal: &Refusal, tool| refusal.status(tool).as_u16();
        let read_only = Refusal::ReadOnly(String::new());
        let full = Refusal::Full(String::new());
        for tool in Tool::ALL {
            let (read_only, full) = (status(&read_only, tool), status(&full, tool));
            match tool {
                Tool::Gradle => assert_eq!((read_only, full), (413, 413)),
                Tool::Nx => assert_eq!((read_only, full), (403, 403)),
                _ => assert_eq!((read_only, full), (403, 507)),
            }
        }
    }
}
