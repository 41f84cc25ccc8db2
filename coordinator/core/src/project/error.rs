//! What can be wrong with a `kiln.toml`.

/// What is wrong with a `kiln.toml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {}
