//! How the coordinators of one farm reach each other.
//!
//! Invariant: nothing here decides who leads.

mod network;
mod peers;
mod relay;

pub use network::Network;
pub use peers::Peers;
pub use relay::{Relay, status};
