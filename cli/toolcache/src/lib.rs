//! The client's side of the caches of build tools: the settings with which a tool finds the farm's cache (`kiln cache env`),
//! and the helpers that tools start (`kiln gocache`, ccache's storage helper).
//!
//! Invariant: a token is printed only if that was asked for, and a helper never makes a tool wait long, or fail, because
//! the farm does not respond.

#[cfg(unix)]
pub mod ccache;
pub mod env;
mod error;
pub mod farm;
pub mod gocache;

pub use error::Error;
