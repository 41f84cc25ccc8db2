//! The farm's web pages, in a real browser: builds that are followed, failures, who may see what, and whoever would do what they may not.

#![allow(clippy::unwrap_used)]

mod access;
mod api;
mod blake3;
mod builds;
mod invocations;
mod pages;
mod tested;
mod world;
