//! Whether steps and artifacts form a build, and in which order.
//!
//! Invariant: a plan that passes can be run front to back, each step finding what it needs.

/// Why steps and artifacts form no build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {}
