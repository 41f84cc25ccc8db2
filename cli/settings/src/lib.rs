//! The user's configuration of `kiln`: farms by name, and which of them is used.

mod choice;
mod file;
mod login;

pub use choice::{apply, choose};
pub use file::{Error, Farm, File};
pub use login::login;
