//! Redis as a cache shared by coordinators: real servers, killed, stopped, filled and damaged.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod blobs;
mod connection;
mod coordinator;
mod failures;
mod layers;
mod results;

const MIB: usize = 1 << 20;

/// The key of the farm of these tests' coordinators.
fn farm_key() -> kiln_auth::FarmKey {
    kiln_auth::FarmKey::of(&[7; 32])
}
