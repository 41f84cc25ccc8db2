//! What a project's files say about how to build it: one file a language.

mod error;
pub use error::Error;
