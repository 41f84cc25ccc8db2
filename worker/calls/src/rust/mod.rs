//! rustc, as cargo calls it.
//!
//! `options` says what each option is, `parse` reads a command line by it, the others know one subject each.

mod announce;
mod codegen;
mod emit;
mod environment;
mod line;
mod options;
mod outputs;
mod parse;
mod target;

pub use announce::{Announced, announced};
pub(crate) use parse::understand;
