//! The seal of a relayed call, as its sender makes it.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kiln_state::FarmKey;
use kiln_state::farm_key::Purpose;
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::codegen::http::HeaderValue;

use super::Relayed;
use super::challenges::BYTES;
use super::message;

/// Maximum length of the header, in bytes.
const MAX_BYTES: usize = 8 * 1024;

/// What the MAC covers, with the path of the call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    pub caller: Relayed,
    /// The URL of the coordinator that the call is passed on to.
    pub to: String,
    /// What that one has issued.
    pub challenge: [u8; BYTES],
    /// Random: tells apart those that use the same challenge.
    pub sender: u128,
    /// Another one for each call.
    pub number: u64,
    /// The digest of the request, if that is one message.
    pub message: Option<[u8; message::BYTES]>,
}

/// Seals calls to one coordinator, for one of its challenges.
#[derive(Debug)]
pub struct Sealer {
    key: FarmKey,
    to: String,
    challenge: [u8; BYTES],
    sender: u128,
    next: AtomicU64,
}

impl Sealer {
    /// For the coordinator at this URL, which has issued this challenge.
    ///
    /// # Errors
    /// `INTERNAL` if that is no challenge.
    pub fn new(key: FarmKey, to: &str, challenge: &[u8]) -> Result<Self, Status> {
        let challenge = challenge.try_into().map_err(|_| {
            Status::internal(format!("the coordinator at `{to}` issued a challenge of {} bytes", challenge.len()))
        })?;
        Ok(Self { key, to: to.to_owned(), challenge, sender: rand::random(), next: AtomicU64::new(0) })
    }

    /// The header for a call of this path; `request`: its body, if that is one message.
    ///
    /// # Errors
    /// `INTERNAL` if the identity cannot be written as a header.
    pub fn seal(&self, caller: &Relayed, path: &str, request: Option<&[u8]>) -> Result<HeaderValue, Status> {
        let wrong = |error: &dyn std::fmt::Display| Status::internal(format!("cannot relay a call: {error}"));
        let sealed = Sealed {
            caller: caller.clone(),
            to: self.to.clone(),
            challenge: self.challenge,
            sender: self.sender,
            number: self.next.fetch_add(1, Ordering::Relaxed),
            message: request.map(message::digest),
        };
        let sealed = serde_json::to_vec(&sealed).map_err(|error| wrong(&error))?;
        let mac = self.key.seal(Purpose::Relay, &[&sealed, path.as_bytes()]);
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(sealed), URL_SAFE_NO_PAD.encode(mac));
        HeaderValue::try_from(text).map_err(|error| wrong(&error))
    }
}

/// What a header says, and the MAC over it.
pub(super) fn parts(header: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = header.to_str().ok().filter(|text| text.len() <= MAX_BYTES)?;
    let (sealed, mac) = text.split_once('.')?;
    Some((URL_SAFE_NO_PAD.decode(sealed).ok()?, URL_SAFE_NO_PAD.decode(mac).ok()?))
}
