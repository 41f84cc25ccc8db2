//! How the coordinators of one farm reach each other.
//!
//! Invariant: nothing here decides who leads.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod dial;
mod network;
mod others;
mod peer;
mod peers;
mod relay;

pub use dial::myself;
pub use network::Network;
pub use others::Others;
pub use peer::status;
pub use peers::Peers;
pub use relay::Relay;
