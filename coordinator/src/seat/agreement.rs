//! What the coordinators of a farm agree by, where it is not Redis.

use std::sync::Arc;

use kiln_peers::Network;
use kiln_replicas::{Register, Shelf};

/// Coordinators of one farm that agree otherwise than in Redis.
#[derive(Debug, Clone)]
pub struct Agreement {
    /// What they agree by.
    pub register: Arc<dyn Register>,
    /// What they keep for each other for a while.
    pub shelf: Arc<dyn Shelf>,
    /// How they reach each other.
    pub network: Network,
    /// What this one is called, such as its host.
    pub name: String,
    /// The URL at which the others reach this one.
    pub address: String,
    /// The blobs that they share.
    pub blobs: Arc<dyn kiln_store::BlobStore>,
}
