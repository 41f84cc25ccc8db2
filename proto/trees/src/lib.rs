//! Merkle trees of directories: everything that the coordinator, the workers and the clients do to them.
//!
//! [`tree`] is a plain tree, as sources, inputs and outputs are: files, symbolic links and directories. [`root`] is a complete file
//! system: owners, modes, extended attributes, special files, hard links, and the whiteouts of a layer. [`walk`] reads either kind,
//! and is the only code that follows a tree from directory to directory; [`shape`] bounds what it may find.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]
#![forbid(unsafe_code)]

pub mod closure;
#[doc(hidden)]
pub mod fuzzing;
pub mod overlay;
pub mod root;
pub mod shape;
pub mod tree;
pub mod walk;

pub use closure::{Closure, closure};
pub use tree::{Encoded, Entry, Tree};
pub use walk::{Blobs, Decoded, Found, Source, Walk};
