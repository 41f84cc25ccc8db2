//! How the coordinators of one farm reach each other.
//!
//! Invariant: nothing here decides who leads.

mod network;
mod others;
mod peer;
mod peers;
mod relay;

pub use network::Network;
pub use others::Others;
pub use peers::{Peers, myself};
pub use relay::{Relay, status};
