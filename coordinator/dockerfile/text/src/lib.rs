//! How a Dockerfile is written: its text becomes lines, heredocs and words, with a place in the file for each error.
//!
//! What the instructions mean is up to `kiln-dockerfile`, which exports these modules as its own.
//!
//! Architecture invariant: no I/O, clock or randomness, and nothing that knows an instruction's semantics. Everything is bounded: no
//! input panics, and none takes more than about linear time and space.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

pub mod error;
pub mod golang;
pub mod patterns;
mod render;
pub mod source;
pub mod text;
pub mod words;
