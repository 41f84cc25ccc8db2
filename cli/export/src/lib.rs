//! What `docker build` leaves: images with attestations, layouts, archives and files.
//!
//! Invariant: the same images, attestations and annotations give the same bytes.

pub mod archive;
mod blobs;
mod engine;
mod error;
mod exports;
pub mod files;
mod set;
pub mod statement;

pub use blobs::Beside;
pub use engine::load;
pub use error::Error;
pub use exports::{Done, Exports, Made, Part};
pub use set::{Attested, Set};
