//! Replicas and journals on real Redis servers.

#![allow(clippy::unwrap_used, missing_docs)]

mod chaos;
mod conformance;
#[path = "../../../journal/tests/engine/mod.rs"]
mod engine;
mod failover;
mod failures;
mod fence;
mod forged;
mod gate;
mod replicas;
mod settings;
mod support;
