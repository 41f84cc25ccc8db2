//! What Bazel and its like tell of their invocations.

mod digest;
mod open;
mod options;
mod publish;
mod records;
mod show;

pub use publish::Publish;
pub use records::{Error, Invocations};
pub use show::Show;
