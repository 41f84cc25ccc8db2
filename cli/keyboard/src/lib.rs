//! The user's terminal while a shell elsewhere has it.
//!
//! Invariant: it is given back as it was, however the process ends, unless that is killed with `SIGKILL`.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod escape;
#[cfg_attr(windows, path = "raw_windows.rs")]
mod raw;
mod streams;

use std::sync::Once;

pub use escape::{Escape, Typed};
pub use raw::{Raw, Resizes, give_back, resizes};
pub use streams::{Printer, typed};

/// From now on, a panic gives the terminal back before it says anything.
fn give_back_at_panic() {
    static AT_PANIC: Once = Once::new();
    AT_PANIC.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            earlier(info);
        }));
    });
}
