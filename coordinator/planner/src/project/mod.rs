//! Reads `kiln.toml` and validates every key and value.

mod caches;
mod dockerfile;
mod error;
mod image;
mod notify;
mod parse;
mod reader;
pub(crate) mod units;

pub use error::Error;
pub use parse::{Base, Head, Project, head, parse, push_places, secrets};

#[cfg(test)]
mod tests;
