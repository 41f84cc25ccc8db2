//! What Bazel and its like tell of their invocations.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod digest;
mod invocations;
mod open;
mod options;
mod publish;
mod ran;
mod records;
mod room;
mod show;
mod values;

pub use invocations::Invocations;
pub use publish::Publish;
pub use records::Error;
pub use show::Show;
