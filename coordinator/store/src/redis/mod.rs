//! Blobs and results in Redis, shared by all coordinators that use it.
//!
//! Uses plain commands of Redis 4 and later, without modules or scripts; a Redis Cluster is detected automatically.
//! Every key starts with the farm's prefix and the layout's version, so that keys of other programs and older layouts
//! are left alone.
//!
//! Invariants: a value from Redis is trusted only if its digest or a MAC with the farm's key verifies it. The key that
//! makes a blob or result visible is written last. A Redis that is unavailable, slow, full or read-only is never waited
//! for twice: [`link::Link`] fails immediately until it has recovered.

mod actions;
mod blobs;
mod link;
mod parts;
mod value;

use std::time::Duration;

use kiln_state::FarmKey;

pub use actions::RedisActions;
pub use blobs::RedisBlobs;
pub use kiln_redis::{Address, Error, Tls};
pub use link::Link;
pub use parts::Parts;

/// Version of the keys and values below. Keys of other versions are never read, and expire.
const LAYOUT: &str = "2";

/// Names and lifetime of the farm's keys.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
    life: Duration,
    farm: FarmKey,
}

impl Keys {
    /// Keys with this prefix that expire when they are not used for `life`. Values that no digest verifies are sealed
    /// with the farm's key.
    pub fn new(prefix: &str, life: Duration, farm: FarmKey) -> Self {
        Self { prefix: format!("{prefix}:{LAYOUT}:"), life: life.max(Duration::from_secs(1)), farm }
    }

    fn blob(&self, digest: &kiln_proto::digest::Digest) -> String {
        format!("{}b:{}:{}-{}", self.prefix, digest.function.name(), digest.hex(), digest.size)
    }

    fn action(&self, instance: &str, digest: &kiln_proto::digest::Digest) -> String {
        let (function, hex, size) = (digest.function.name(), digest.hex(), digest.size);
        // The instance comes last, because it may contain any character.
        format!("{}a:{function}:{hex}-{size}:{instance}", self.prefix)
    }

    fn seconds(&self) -> u64 {
        self.life.as_secs()
    }
}
