//! Container images without a daemon: references, layers, configurations, layouts, registries.
//!
//! Invariant: independent of farms, projects and gRPC. Everything created here depends only on its inputs, not on a
//! clock or the machine.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

pub mod archive;
pub mod base;
pub mod blobs;
mod choose;
pub mod contents;
pub mod digest;
#[doc(hidden)]
pub mod fuzzing;
mod gzip;
pub mod image;
pub mod layer;
pub mod layout;
pub mod manifest;
mod metered;
pub mod name;
pub mod platform;
pub mod push;
pub mod reference;
pub mod referrer;
pub mod registry;
