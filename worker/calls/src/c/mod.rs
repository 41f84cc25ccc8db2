//! Drivers of gcc and clang.
//!
//! `table` says what each option is, `parse` reads a command line by it, the others know one subject each.

mod assembler;
mod clang;
mod driver;
mod environment;
mod language;
mod line;
mod native;
mod outputs;
mod parse;
mod preprocessor;
mod response;
mod search;
mod system;
mod table;
mod words;

pub(crate) use driver::driver;
pub(crate) use parse::understand;

pub use native::{native_query, with_native};
pub use system::{search_directories, search_query};
