//! `kiln.toml`: read, and every key and value held against what there is.

mod error;
pub use error::Error;
