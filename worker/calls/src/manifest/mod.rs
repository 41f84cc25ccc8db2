//! What a call read the last times it ran: where to look for its inputs before it runs again.
//!
//! A [`Manifest`] is stored under the call's [`key`]. It is never trusted for content, only for where to look: a wrong one costs
//! a miss.

mod format;
mod identity;
mod matching;
mod variant;
mod variants;

pub use identity::{Toolchain, key};
pub use matching::{Difference, Match, Present};
pub use variant::{Read, Variant};
pub use variants::{Error, MAX_BYTES, MAX_VARIANTS, Manifest};
