//! What Bazel and its like tell of their invocations.

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
