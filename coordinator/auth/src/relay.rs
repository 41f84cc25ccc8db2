//! Calls that one coordinator of a farm passes on to another, on behalf of the caller that it has authenticated.
//!
//! Invariant: a relayed identity is believed only under a MAC with the farm's key and, where the farm has TLS, only on a connection with a
//! certificate that the farm's authority issued to a coordinator. The MAC covers the caller, the call's path, the receiver's URL, a
//! challenge that the receiver has issued within the last two minutes by its own monotonic clock, a number that it has not received with
//! this challenge before, and the digest of the request where that is one message. So a call that was recorded is refused wherever it is
//! sent again, and no clocks are compared.

mod challenges;
mod message;
mod seal;

use std::net::SocketAddr;
use std::sync::Arc;

use kiln_state::FarmKey;
use kiln_state::farm_key::Purpose;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Status;
use tonic::codegen::http;
use tonic::metadata::MetadataValue;

use super::Identity;
use challenges::{Challenges, Unfit};
pub use challenges::{LEAST, MOST};
pub(crate) use message::Message;
pub use message::verified;
pub(crate) use seal::Sealed;
pub use seal::Sealer;

/// The header with the caller of a relayed call.
pub const HEADER: &str = "kiln-relayed";

/// In an answer: the seal's challenge is over. The call had no effect, and can be sealed again with the current one.
pub const OVER: &str = "kiln-challenge-over";

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

/// Receives what other coordinators pass on to this one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reception {
    key: FarmKey,
    /// The URL at which the others reach this coordinator.
    me: Arc<str>,
    challenges: Arc<Mutex<Challenges>>,
}

impl Reception {
    /// For the coordinator that others reach at this URL, and seal calls for with this key.
    pub fn new(key: FarmKey, me: &str) -> Self {
        Self { key, me: me.into(), challenges: Arc::new(Mutex::new(Challenges::new(Instant::now()))) }
    }

    /// What the next calls must be sealed with.
    pub fn challenge(&self) -> Vec<u8> {
        self.challenges.lock().current(Instant::now()).to_vec()
    }

    /// What is in the header of a call, if it has one: by a coordinator of this farm, for this one.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if it is not.
    pub(crate) fn open(&self, call: &http::request::Parts) -> Result<Option<Sealed>, Status> {
        let Some(header) = call.headers.get(HEADER) else { return Ok(None) };
        let refused = || {
            Status::unauthenticated(format!(
                "the header `{HEADER}` is not from a coordinator of this farm; coordinators of one farm have the same key (`--farm-key`)"
            ))
        };
        let (sealed, mac) = seal::parts(header).ok_or_else(refused)?;
        if !self.key.verify(Purpose::Relay, &[&sealed, call.uri.path().as_bytes()], &mac) {
            return Err(refused());
        }
        let sealed: Sealed = serde_json::from_slice(&sealed).map_err(|_| refused())?;
        if *sealed.to != *self.me {
            return Err(Status::unauthenticated(format!(
                "this call was passed on to the coordinator at `{}`, and this is the one at `{}`",
                sealed.to, self.me
            )));
        }
        Ok(Some(sealed))
    }

    /// Takes note of a call, which is received once.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if it was received before, or its challenge is over.
    pub(crate) fn receive(&self, sealed: &Sealed) -> Result<(), Status> {
        let Sealed { challenge, sender, number, .. } = sealed;
        match self.challenges.lock().receive(Instant::now(), challenge, *sender, *number) {
            Ok(()) => Ok(()),
            Err(Unfit::Over) => {
                let mut refused = Status::unauthenticated(
                    "this call was sealed for a challenge that is over; the coordinator that passed it on seals it again",
                );
                refused.metadata_mut().insert(OVER, MetadataValue::from_static("1"));
                Err(refused)
            }
            Err(Unfit::Received) => {
                tracing::warn!(
                    caller = sealed.caller.identity.name,
                    "refused a call that was received before: somebody has recorded it"
                );
                Err(Status::unauthenticated("this call was received before; it counts once"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
