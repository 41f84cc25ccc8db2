//! The file systems that the stages of a Dockerfile go through: a base becomes a root, instructions that copy change it without a
//! worker, and what the stages added becomes the layers of an image.
//!
//! Invariants: a root is a tree in the store, and no file's bytes are read but to import a base, to unpack an archive or to write a
//! layer; equal instructions on equal roots give equal roots, wherever and whenever they run.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod accounts;
mod archive;
mod build;
mod contents;
mod context;
mod copy;
mod error;
mod export;
mod files;
mod image;
mod import;
mod mode;
mod mounts;
mod select;
mod settled;
mod subtree;
mod times;
mod workdir;

pub use build::{Done, Host};
pub use error::Error;
pub use export::{Layer, Packing};
pub use files::{Files, Roots};
pub use image::Assembled;
pub use import::Imported;
pub use mounts::Mounted;
pub use times::{Dates, moved};
