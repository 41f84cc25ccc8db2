//! Reads `kiln.toml` and validates every key and value.

mod caches;
mod dockerfile;
mod error;
mod gates;
mod image;
mod notify;
mod parse;
mod reader;
pub(crate) mod units;

pub use error::Error;
pub(crate) use gates::{PURPOSE as GATE_PURPOSE, TIMEOUT as GATE_TIMEOUT};
pub use parse::{Base, Head, Project, head, parse, push_places, secrets};

#[cfg(test)]
mod tests;
