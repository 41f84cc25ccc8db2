//! What detectors of languages have in common: what they find, why they refuse, and what they ask a source tree.

mod error;
pub mod found;
mod jsonc;
mod language;
pub mod staging;
pub mod tree;

pub use error::Error;
pub use found::{Detected, Identity, artifact_name};
pub use language::{Language, UnknownLanguage};
