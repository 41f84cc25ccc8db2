//! Projects on this machine: what a build of a directory sees, its plan, and which of several projects changed since a commit.
//!
//! Invariant: no farm is asked, and the repository is only read.

pub mod affected;
mod base;
mod key;
pub mod left_out;
mod project;
pub mod several;
pub mod shown;

pub use base::{Base, Error as BaseError};
pub use key::{Change, Key};
pub use project::{Project, directory_name, host};
