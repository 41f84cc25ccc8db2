//! What build tools say to a cache over HTTP: Bazel, ccache, Gradle, Go, Maven, Nx, sccache (WebDAV) and Turborepo.
//!
//! A request's path says which tool speaks ([`Place`]); its dialect ([`ask()`]) turns it into a question of "get, put or remove by key"
//! ([`Ask`]). Whoever keeps entries answers with [`answers`], or with a [`Refusal`], which knows the status with which each tool
//! carries on. The coordinator serves tools anywhere in this way, and a worker those inside its steps.
//!
//! Invariant: what comes out of a request is bounded and plain: no key leads out of its tool, and no body is handed on that is not whole.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

pub mod answers;
mod ask;
mod body;
mod dialects;
mod entry;
mod place;
mod refusal;
mod tool;

pub use ask::{Ask, Fixed, Put, Verb};
pub use body::{Data, Pieces, Received, Room};
pub use dialects::ask;
pub use entry::{Entry, WORKER};
pub use place::Place;
pub use refusal::Refusal;
pub use tool::Tool;
