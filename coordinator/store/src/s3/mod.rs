//! Blobs in a bucket of S3 or a compatible service: blobs too large for Redis, or all shared blobs.
//!
//! | object | what it is |
//! | --- | --- |
//! | `{prefix}/blobs/1/{function}/{first byte of the hash}/{hash}-{size}` | a blob; an upload becomes visible when it is complete |
//! | `{prefix}/uses/1/{function}/{first byte of the hash}/{hash}-{size}` | nothing: it was written when that blob was used |
//!
//! Invariants: what is read is checked before it is believed; a bucket that is away is not waited for twice, since
//! a [circuit breaker](crate::breaker) fails each call at once until the bucket is back; nothing used within the configured life is removed, whoever
//! used it ([`life`] says why).

mod address;
mod blobs;
mod bucket;
mod health;
mod life;
mod sweep;
mod upload;

pub use address::Address;
pub use blobs::S3Blobs;
