//! Redis as all parts of a coordinator use it: how its address is written, how one connects, and what its errors mean.
//!
//! Invariants: no text of this crate contains a password. No call waits longer than its limit.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod address;
mod connection;
mod error;
mod master;
mod sentinel;
mod wire;

pub use address::{Address, Tls};
pub use connection::{Connection, connect};
pub use error::{Error, failure, message};
pub use wire::{Call, Script, Wire};

/// Time limit for connecting to one node.
pub const CONNECT: std::time::Duration = std::time::Duration::from_secs(3);
/// Time limit for a call.
pub const CALL: std::time::Duration = std::time::Duration::from_secs(5);
