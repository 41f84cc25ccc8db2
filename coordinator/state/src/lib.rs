//! What a coordinator keeps on its own disk besides blobs, for several of its parts: embedded databases, the farm's
//! key, and files that are replaced while it runs.

mod current;
pub mod database;
pub mod farm_key;
mod reopening;
pub mod syncs;
mod unsynced;
mod watched;

pub use current::Current;
pub use farm_key::FarmKey;
pub use reopening::Reopening;
pub use watched::{Look, Watched};
