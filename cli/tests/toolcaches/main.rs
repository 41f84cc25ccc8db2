//! The caches of build tools: the real tools against a farm of processes, cold and warm, with a wrong token and without the
//! farm; and whoever would read or change what is not theirs.

#![allow(clippy::unwrap_used)]

mod attacks;
mod bazel;
mod ccache;
mod distrust;
mod go;
mod gradle;
mod node;
mod sccache;
mod scopes;
mod stores;
mod up;
mod world;
