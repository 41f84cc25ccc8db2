//! `google.rpc.PreconditionFailure`: how a farm names missing blobs.
//!
//! Source: `google/rpc/error_details.proto`, and REAPI v2 on `Execution.Execute`: one violation per blob, with the type
//! `MISSING` and with the subject `blobs/{digest function, unless SHA256}/{hash}/{size}`, without the instance.

use prost::Message;

use crate::digest::Digest;
use crate::{protobuf, rpc};

const TYPE_URL: &str = "type.googleapis.com/google.rpc.PreconditionFailure";
const MISSING: &str = "MISSING";

#[derive(Clone, PartialEq, Message)]
struct PreconditionFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, Message)]
struct Violation {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    subject: String,
    #[prost(string, tag = "3")]
    description: String,
}

/// The status `FAILED_PRECONDITION` that names the missing blobs.
pub fn missing(digests: &[Digest]) -> rpc::Status {
    let violations = digests
        .iter()
        .map(|digest| Violation {
            r#type: MISSING.to_owned(),
            subject: format!("blobs/{digest}"),
            description: String::new(),
        })
        .collect();
    let failure = PreconditionFailure { violations };
    let named: Vec<String> = digests.iter().take(3).map(|digest| format!("`{digest}`")).collect();
    let more = match digests.iter().skip(named.len()).count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    rpc::Status {
        code: tonic::Code::FailedPrecondition as i32,
        message: format!("the farm's store is missing {}{more}; upload and execute again", named.join(", ")),
        details: vec![protobuf::Any { type_url: TYPE_URL.to_owned(), value: failure.encode_to_vec() }],
    }
}

/// The subjects of the missing blobs in a status; empty if there are none.
pub fn subjects(status: &rpc::Status) -> Vec<String> {
    status
        .details
        .iter()
        .filter(|any| any.type_url == TYPE_URL)
        .filter_map(|any| PreconditionFailure::decode(any.value.as_slice()).ok())
        .flat_map(|failure| failure.violations)
        .filter(|violation| violation.r#type == MISSING)
        .map(|violation| violation.subject)
        .collect()
}

/// Converts to a gRPC status, with details where clients expect them.
pub fn to_tonic(status: &rpc::Status) -> tonic::Status {
    tonic::Status::with_details(status.code.into(), status.message.clone(), status.encode_to_vec().into())
}

/// Converts from a gRPC status, with its details.
pub fn from_tonic(status: &tonic::Status) -> rpc::Status {
    match rpc::Status::decode(status.details()) {
        Ok(decoded) if !status.details().is_empty() => decoded,
        _ => rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::DigestFunction;

    #[test]
    fn missing_blobs_survive_the_wire_and_name_blake3_only() {
        let sha = DigestFunction::Sha256.digest(b"one");
        let blake = DigestFunction::Blake3.digest(b"two");
        let status = from_tonic(&to_tonic(&missing(&[sha, blake])));
        assert_eq!(status.code, 9);
        assert_eq!(subjects(&status), [format!("blobs/{}/3", sha.hex()), format!("blobs/blake3/{}/3", blake.hex())]);
    }
}
