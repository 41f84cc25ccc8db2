//! Why the replicas cannot agree.

/// Why the replicas cannot agree. Whatever it is, it is the farm's fault.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Redis(#[from] kiln_redis::Error),
}
