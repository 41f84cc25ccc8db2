//! The user's configuration of `kiln`: farms by name, and which of them is used.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod choice;
mod file;
mod flags;
mod login;
mod shown;

pub use choice::{Command, apply, check_flags, choose, read};
pub use file::{Error, Farm, File, Flags};
pub use flags::Added;
pub use login::login;
pub use shown::shown;
