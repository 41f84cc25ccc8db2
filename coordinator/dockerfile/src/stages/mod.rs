//! Stages: what each is based on and takes files from, and which of them a build needs.

mod args;
mod graph;
mod onbuild;
mod resolve;

pub(crate) use graph::{Graph, Node, Origin, Step};
pub(crate) use resolve::resolve;
