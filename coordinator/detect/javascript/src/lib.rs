//! How to build projects of Node and Bun (`package.json`) and of Deno (`deno.json`).
//!
//! Invariant: a dependency layer's inputs are manifests, lock files and the tools' own configuration, never sources.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod compiled;
pub mod deno;
pub mod node;

use kiln_detected::{Detected, Error, Identity, found, staging, tree};
