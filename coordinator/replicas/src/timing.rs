//! How long a lease lasts.

use std::time::Duration;

/// How long a lease lasts, and how often it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How often it is renewed, and how often a follower asks for it.
    pub renew: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(5), renew: Duration::from_secs(1) }
    }
}
