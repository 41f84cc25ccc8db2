//! Steps that are split into their compiler calls, on a farm of real processes with real compilers.

#![allow(clippy::unwrap_used)]

mod attacks;
mod c;
mod cmake;
mod early;
mod faults;
mod go;
mod in_images;
mod project;
mod rust;
mod spread;
mod told;
mod tools;
mod verify;
