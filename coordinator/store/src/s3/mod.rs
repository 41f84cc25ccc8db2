//! Blobs in a bucket of S3 or a compatible service: blobs too large for Redis, or all shared blobs.
//!
//! | object | what it is |
//! | --- | --- |
//! | `{prefix}/blobs/1/{function}/{first byte of the hash}/{hash}-{size}` | a blob; an upload becomes visible when it is complete |
//! | `{prefix}/uses/1/{function}/{first byte of the hash}/{hash}-{size}` | nothing: it was written when that blob was used |
//!
//! Invariants: every blob, and every part of one, is verified when it is read. A bucket that is unavailable is not waited for twice:
//! a [circuit breaker](crate::breaker) fails each call immediately until it has recovered. Nothing used within the
//! configured lifetime by any coordinator is removed ([`life`] explains why).

mod blobs;
mod bucket;
mod health;
mod life;
mod pieces;
mod sweep;
mod upload;

pub use blobs::S3Blobs;
pub use kiln_buckets::Address;
