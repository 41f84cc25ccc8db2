//! Coordinators of a farm, and their terms.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One coordinator of the farm, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Unique for each start of a process: it ends with a random part.
    pub name: String,
    /// The URL at which other replicas reach it.
    pub address: String,
    /// Its version, for people.
    pub version: String,
    /// The number of the protocol that it speaks.
    pub protocol: u32,
}

/// A period of leadership. Epochs grow; the nonce tells apart two terms of the same epoch, as after a Redis that lost its last second.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Grows with each term.
    pub epoch: u64,
    /// Random, new for each term.
    pub nonce: String,
}

impl fmt::Display for Term {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.epoch, self.nonce)
    }
}
