//! The Remote Asset API: what is at an address, fetched once for everybody.

mod asked;
mod download;
mod records;
mod service;

pub use download::Downloads;
pub use service::Assets;
