//! Blobs and results in Redis, shared by all coordinators that use it.
//!
//! Plain commands of any Redis from version 4 on, no modules and no scripts; a Redis Cluster is recognised by itself. Every key
//! begins with the farm's prefix and the layout's version, so that other programs' keys and older layouts are left alone.
//!
//! Invariants: nothing in Redis is believed that neither its digest nor a MAC under the farm's key vouches for; the key that makes a blob or result visible is written last; what is read is checked before it is believed; a
//! Redis that is away, slow, full or read-only is never waited for twice: [`link::Link`] answers at once until it is back.

mod actions;
mod address;
mod blobs;
mod error;
mod link;
mod parts;
mod value;

use std::time::Duration;

use kiln_state::FarmKey;

pub use actions::RedisActions;
pub use address::{Address, Tls};
pub use blobs::RedisBlobs;
pub use error::Error;
pub use link::Link;
pub use parts::Parts;

/// Version of the keys and values below. Another version's keys are never read, and expire.
const LAYOUT: &str = "2";

/// How the farm's keys are named, and how long they live.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
    life: Duration,
    farm: FarmKey,
}

impl Keys {
    /// Keys under `prefix` that expire when they were not used for `life`. What stands under them is sealed with the farm's key where no digest
    /// checks it.
    pub fn new(prefix: &str, life: Duration, farm: FarmKey) -> Self {
        Self { prefix: format!("{prefix}:{LAYOUT}:"), life: life.max(Duration::from_secs(1)), farm }
    }

    fn blob(&self, digest: &kiln_proto::digest::Digest) -> String {
        format!("{}b:{}:{}-{}", self.prefix, digest.function.name(), digest.hex(), digest.size)
    }

    fn action(&self, instance: &str, digest: &kiln_proto::digest::Digest) -> String {
        let (function, hex, size) = (digest.function.name(), digest.hex(), digest.size);
        // The instance comes last: it may hold anything.
        format!("{}a:{function}:{hex}-{size}:{instance}", self.prefix)
    }

    fn seconds(&self) -> u64 {
        self.life.as_secs()
    }
}
