//! Pure knowledge of compilers' command lines: what a call reads, what it writes, and in which environment, so that a build
//! step can be split into one cached action per compiler call.
//!
//! [`understand()`] turns an [`Invocation`] into a [`Call`] or a [`Refusal`]. A refused call runs in its step as if Kiln were
//! not there, so a refusal costs time and never correctness: whatever is not certainly understood is refused.
//!
//! Invariant: no I/O. Whatever must be read is asked from the caller through [`Files`].

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod c;
mod call;
pub mod crates;
mod depfile;
mod invocation;
pub mod manifest;
mod paths;
mod refusal;
mod rust;
pub mod scan;
mod understand;

pub use c::{native_query, search_directories, search_query, with_native};
pub use call::{
    CDetails, Call, CrateType, Defined, Details, Directory, DirectoryKind, Extern, Forced, Input, Language, Output,
    OutputKind, Role, RustDetails, Search, SystemSearch,
};
pub use depfile::{DepInfo, Rule, dep_info, rules};
pub use invocation::{Files, Invocation, Kind};
pub use paths::absolute;
pub use refusal::Refusal;
pub use rust::{Announced, announced};
pub use understand::{is_compiler, understand};
