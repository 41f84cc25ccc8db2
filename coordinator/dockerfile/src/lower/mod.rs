//! Lowering: stages become operations, and the target's configuration and history.
//!
//! Invariants: an operation comes after those that it needs; only what the target needs is there; the same file and options give
//! the same build.

mod command;
mod copied;
mod copy;
mod display;
mod expand;
mod expose;
mod finish;
mod inputs;
mod metadata;
mod mode;
mod mounts;
mod operation;
mod remote;
mod run;
mod signal;
mod stage;
mod state;

pub use command::{Run, RunMount};
pub use copied::{Chmod, Copy, CopySource, WithParents};
pub use operation::{Build, Context, Fetch, Operation, Operator, Paths};

use std::collections::BTreeMap;

use crate::bases::{BaseImage, Bases};
use crate::checks;
use crate::error::{Error, Problem};
use crate::file::Dockerfile;
use crate::lint::{Config, Lints};
use crate::options::Options;
use crate::stages::{Graph, resolve};
use stage::Lowering;

/// The base images whose configurations must be known before a file is lowered. Fetch them, add them to `bases`, and ask again
/// until there are none: an image's stored instructions can name further ones.
///
/// # Errors
/// If the file does not fit together.
pub fn bases(file: &Dockerfile, options: &Options, bases: &Bases) -> Result<Vec<BaseImage>, Error> {
    Ok(graph(file, options, bases).map_err(|problem| problem.of(&file.source))?.wanted)
}

/// Lowers a file.
///
/// # Errors
/// If the file does not fit together, an instruction fails, or a base image is not known.
pub fn lower(file: &Dockerfile, options: &Options, bases: &Bases) -> Result<Build, Error> {
    let lowered = graph(file, options, bases).and_then(|graph| {
        if let Some(missing) = graph.wanted.first() {
            let message = format!("the image `{}` has not been fetched", missing.reference.show(None));
            let place = file.stages.first().map(|stage| stage.from.base.span).unwrap_or_default();
            return Err(Problem::new(place, message));
        }
        build(file, options, graph)
    });
    lowered.map_err(|problem| problem.of(&file.source))
}

fn graph(file: &Dockerfile, options: &Options, bases: &Bases) -> Result<Graph, Problem> {
    let mut lints = Lints::new(config(file, options)?, file.source.clone());
    checks::run(file, &mut lints);
    resolve(file, options, bases, lints)
}

/// The options of rules: a build argument's, or the file's.
fn config(file: &Dockerfile, options: &Options) -> Result<Config, Problem> {
    let own = file.directives.check.as_ref();
    let (text, span) = match options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        Some(text) => (text.as_str(), Default::default()),
        None => (
            own.map_or("", |word| word.value.split(' ').next().unwrap_or_default()),
            own.map(|word| word.span).unwrap_or_default(),
        ),
    };
    Config::read(text).map_err(|message| Problem::new(span, format!("invalid options of `check`: {message}")))
}

fn build(file: &Dockerfile, options: &Options, mut graph: Graph) -> Result<Build, Problem> {
    let lints = std::mem::replace(&mut graph.lints, Lints::new(Config::default(), file.source.clone()));
    let mut lowering = Lowering::new(file, options, &graph, lints);
    let mut states = BTreeMap::new();
    for at in 0..graph.stages {
        if graph.reachable[at] || options.all_stages {
            let state = lowering.stage(at, &states)?;
            states.insert(at, state);
        }
    }
    let target =
        states.remove(&graph.target).ok_or_else(|| Problem::new(graph.nodes[graph.target].span, "no target"))?;
    lowering.finish(target)
}
