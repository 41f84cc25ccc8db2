//! Projects on this machine: what a build of a directory sees, its plan, and which of several projects changed since a commit.
//!
//! Invariant: no farm is asked, and the repository is only read.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

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
