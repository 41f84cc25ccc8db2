//! What detectors of languages have in common: what they find, why they refuse, and what they ask a source tree.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod error;
pub mod found;
mod jsonc;
mod language;
pub mod staging;
pub mod tree;

pub use error::Error;
pub use found::{Detected, Identity, artifact_name};
pub use language::{Language, UnknownLanguage};
