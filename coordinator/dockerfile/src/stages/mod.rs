//! Stages: what each is based on and takes files from, and which of them a build needs.

mod args;
mod graph;
mod onbuild;
mod resolve;

pub(crate) use graph::{Graph, Node, Origin, Step};
pub(crate) use resolve::resolve;

use crate::error::Problem;
use crate::file::Dockerfile;
use crate::options::{GlobalArgs, Options};

/// The values of the arguments before the first stage.
pub(crate) fn global_args(file: &Dockerfile, options: &Options) -> Result<GlobalArgs, Problem> {
    args::global(file, options, &target_name(file, options), true)
}

/// The name of the stage that is built; empty if it has none.
fn target_name(file: &Dockerfile, options: &Options) -> String {
    let last = file.stages.last().and_then(|stage| stage.name.clone());
    options.target.clone().or(last).unwrap_or_default()
}
