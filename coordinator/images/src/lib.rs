//! Container images without a daemon: references, layers, configurations, layouts, registries.
//!
//! Invariant: independent of farms, projects and gRPC. Everything created here depends only on its inputs, not on a
//! clock or the machine.

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
