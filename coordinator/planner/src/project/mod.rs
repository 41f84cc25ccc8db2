//! `kiln.toml`: read, and every key and value held against what there is.

mod error;
mod image;
mod parse;
mod reader;
pub(crate) mod units;

pub use error::Error;
pub use parse::{Base, Head, Project, head, parse, push_places, secrets};

#[cfg(test)]
mod tests;
