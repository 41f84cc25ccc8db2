//! What a coordinator keeps on its own disk besides blobs, for several of its parts: embedded databases, the farm's
//! key, files that are replaced while it runs, and which workers are not believed.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod current;
pub mod database;
pub mod distrust;
pub mod farm_key;
mod reopening;
mod replace;
pub mod syncs;
mod unsynced;
mod watched;

pub use current::Current;
pub use distrust::Distrusted;
pub use farm_key::FarmKey;
pub use reopening::Reopening;
pub use replace::replace;
pub use watched::{Look, Watched};
