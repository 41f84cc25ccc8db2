//! How a Dockerfile is read: what instructions, words, patterns, stages and rules mean.

#![allow(clippy::unwrap_used)]

mod errors;
mod ignore;
mod images;
mod instructions;
mod limits;
mod lints;
mod mounts;
mod names;
mod offers;
mod operations;
mod stages;
mod support;
mod text;
mod words;
