//! A client of a farm with several coordinators, some of which are away, silent, slow or wrong.

#![allow(clippy::unwrap_used)]

mod calls;
mod reads;
mod world;
