//! Calls that one coordinator of a farm passes on to another, on behalf of the caller that it has authenticated.
//!
//! Invariant: a relayed identity is believed only under a MAC with the farm's key over the identity and the call's path and, where
//! the farm has TLS, only on a connection with a certificate that the farm's authority issued to a coordinator.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kiln_state::FarmKey;
use kiln_state::farm_key::Purpose;
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::codegen::http;
use tonic::codegen::http::HeaderValue;

use super::Identity;

/// The header with the caller of a relayed call.
pub const HEADER: &str = "kiln-relayed";

/// Maximum length of the header, in bytes.
const MAX_BYTES: usize = 8 * 1024;

/// The caller of a relayed call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Who calls.
    pub identity: Identity,
    /// Where the call came from.
    pub address: Option<SocketAddr>,
}

/// An answer to a relayed call, as an extension: whoever answered it has logged it.
#[derive(Debug, Clone, Copy)]
pub struct Answered;

impl Relayed {
    /// The header for a call of this path.
    ///
    /// # Errors
    /// `INTERNAL` if the identity cannot be written as a header.
    pub fn seal(&self, key: &FarmKey, path: &str) -> Result<HeaderValue, Status> {
        let wrong = |error: &dyn std::fmt::Display| Status::internal(format!("cannot relay a call: {error}"));
        let caller = serde_json::to_vec(self).map_err(|error| wrong(&error))?;
        let mac = key.seal(Purpose::Relay, &[&caller, path.as_bytes()]);
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(caller), URL_SAFE_NO_PAD.encode(mac));
        HeaderValue::try_from(text).map_err(|error| wrong(&error))
    }

    /// The caller in the header of a call, if it has one. The MAC is checked; the connection is not.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the header is not from a coordinator of this farm.
    pub fn open(key: &FarmKey, call: &http::request::Parts) -> Result<Option<Self>, Status> {
        let Some(header) = call.headers.get(HEADER) else { return Ok(None) };
        let refused = || {
            Status::unauthenticated(format!(
                "the header `{HEADER}` is not from a coordinator of this farm; coordinators of one farm have the same key (`--farm-key`)"
            ))
        };
        let text = header.to_str().ok().filter(|text| text.len() <= MAX_BYTES).ok_or_else(refused)?;
        let (caller, mac) = text.split_once('.').ok_or_else(refused)?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| refused());
        let (caller, mac) = (decoded(caller)?, decoded(mac)?);
        if !key.verify(Purpose::Relay, &[&caller, call.uri.path().as_bytes()], &mac) {
            return Err(refused());
        }
        serde_json::from_slice(&caller).map(Some).map_err(|_| refused())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::Role;

    fn call(path: &str, header: Option<HeaderValue>) -> http::request::Parts {
        let mut request = http::Request::builder().uri(path).body(()).unwrap();
        if let Some(header) = header {
            request.headers_mut().insert(HEADER, header);
        }
        request.into_parts().0
    }

    #[test]
    fn a_relayed_caller_is_believed_for_the_call_that_it_was_sealed_for_under_the_farms_key() {
        let (key, other) = (FarmKey::ephemeral(), FarmKey::ephemeral());
        let identity = Identity {
            name: "ann".into(),
            tenant: "web".into(),
            roles: [Role::Builder, Role::Admin].into(),
            expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)),
            scope: Some("refs/pull/7".into()),
            ..Identity::anonymous()
        };
        let ann = Relayed { identity, address: Some(([10, 0, 0, 1], 7).into()) };
        let sealed = ann.seal(&key, "/kiln.v1.Builds/Submit").unwrap();
        let open = |key: &FarmKey, path: &str, header| Relayed::open(key, &call(path, Some(header)));
        assert_eq!(open(&key, "/kiln.v1.Builds/Submit", sealed.clone()).unwrap(), Some(ann));
        assert!(Relayed::open(&key, &call("/kiln.v1.Builds/Submit", None)).unwrap().is_none());
        let mut forged = sealed.to_str().unwrap().to_owned();
        forged.replace_range(4..5, if forged.as_bytes()[4] == b'A' { "B" } else { "A" });
        for (key, path, header) in [
            (&key, "/kiln.v1.Cache/Prune", sealed.clone()),
            (&other, "/kiln.v1.Builds/Submit", sealed),
            (&key, "/kiln.v1.Builds/Submit", forged.parse().unwrap()),
            (&key, "/kiln.v1.Builds/Submit", HeaderValue::from_static("")),
            (&key, "/kiln.v1.Builds/Submit", HeaderValue::from_static(".")),
            (&key, "/kiln.v1.Builds/Submit", HeaderValue::from_bytes(b"\xff.\xff").unwrap()),
        ] {
            let refused = open(key, path, header).expect_err(path);
            assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        }
    }
}
