//! How to build projects of Node and Bun (`package.json`) and of Deno (`deno.json`).
//!
//! Invariant: a dependency layer's inputs are manifests, lock files and the tools' own configuration, never sources.

mod compiled;
pub mod deno;
pub mod node;

use kiln_detected::{Detected, Error, Identity, found, staging, tree};
