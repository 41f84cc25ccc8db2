//! The Remote Asset API: what is at an address, fetched once for everybody.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod asked;
mod download;
mod records;
mod service;

pub use download::Downloads;
pub use service::Assets;
