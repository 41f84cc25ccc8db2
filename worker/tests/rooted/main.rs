//! Actions in root file systems of their own, from the lease to the result: what a command sees, may do, and leaves.

#![allow(clippy::unwrap_used)]

mod again;
#[path = "../support/attempts.rs"]
mod attempts;
mod attributes;
mod base;
mod caches;
mod escape;
mod layers;
mod limits;
mod mounts;
mod network;
mod packages;
mod place;
mod step_caches;
#[path = "../support/mod.rs"]
mod support;
