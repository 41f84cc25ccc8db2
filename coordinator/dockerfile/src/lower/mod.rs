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
pub use operation::{Build, Fetch, Operation, Operator, Paths};

use std::collections::BTreeMap;

use crate::bases::{BaseImage, Bases};
use crate::checks;
use crate::epoch;
use crate::error::{Error, Problem, shown};
use crate::file::{Dockerfile, is_known_frontend};
use crate::lint::{Config, Lint, Lints};
use crate::options::Options;
use crate::source::Span;
use crate::stages::{Graph, resolve};
use stage::Lowering;

/// The base images whose configurations must be known before a file is lowered. Fetch them, add them to `bases`, and ask again
/// until there are none: an image's stored instructions can name further ones.
///
/// # Errors
/// If the file does not fit together.
pub fn bases(file: &Dockerfile, options: &Options, bases: &Bases) -> Result<Vec<BaseImage>, Error> {
    let wanted = lints(file, options).and_then(|lints| {
        let (options, epoch) = epoch::resolved(file, options)?;
        Ok(graph(file, &options, bases, epoch, lints)?.wanted)
    });
    wanted.map_err(|problem| problem.of(&file.source))
}

/// The error that a base image cannot be fetched, at the place that names it first.
pub fn unusable(
    file: &Dockerfile,
    options: &Options,
    bases: &Bases,
    image: &BaseImage,
    reason: impl Into<String>,
) -> Error {
    let place = lints(file, options).and_then(|lints| {
        let (options, epoch) = epoch::resolved(file, options)?;
        Ok(graph(file, &options, bases, epoch, lints)?.place_of(file, image))
    });
    Problem::new(place.ok().flatten().unwrap_or_default(), reason).of(&file.source)
}

/// Lowers a file.
///
/// # Errors
/// If the file does not fit together, an instruction fails, or a base image is not known.
pub fn lower(file: &Dockerfile, options: &Options, bases: &Bases) -> Result<Build, Error> {
    let lowered = lints(file, options).and_then(|lints| lower_with(file, options, bases, lints));
    lowered.map_err(|problem| problem.of(&file.source))
}

/// What the rules find, also in a file that cannot be built, and why it cannot.
pub fn check(file: &Dockerfile, options: &Options, bases: &Bases) -> (Vec<Lint>, Option<Error>) {
    match lints(file, options) {
        Err(problem) => (Vec::new(), Some(problem.of(&file.source))),
        Ok(lints) => {
            let lowered = lower_with(file, options, bases, lints.clone());
            (lints.found(), lowered.err().map(|problem| problem.of(&file.source)))
        }
    }
}

fn lower_with(file: &Dockerfile, options: &Options, bases: &Bases, lints: Lints) -> Result<Build, Problem> {
    let (options, epoch) = epoch::resolved(file, options)?;
    let graph = graph(file, &options, bases, epoch, lints)?;
    if let Some(missing) = graph.wanted.first() {
        let message = format!("the image `{}` has not been fetched", missing.reference.show(None));
        let place = file.stages.first().map(|stage| stage.from.base.span).unwrap_or_default();
        return Err(Problem::new(place, message));
    }
    Ok(Build { epoch, ..build(file, &options, graph)? })
}

/// What the rules find in the file alone.
fn lints(file: &Dockerfile, options: &Options) -> Result<Lints, Problem> {
    let mut lints = Lints::new(config(file, options)?, file.source.clone());
    checks::run(file, &mut lints);
    Ok(lints)
}

fn graph(
    file: &Dockerfile,
    options: &Options,
    bases: &Bases,
    epoch: Option<i64>,
    lints: Lints,
) -> Result<Graph, Problem> {
    if let Some(frontend) = options.build_args.get("BUILDKIT_SYNTAX").filter(|name| !is_known_frontend(name)) {
        let message = format!("the frontend {} of `BUILDKIT_SYNTAX` is not supported", shown(frontend));
        return Err(Problem::new(Span::default(), message).help("leave out the build argument"));
    }
    let mut graph = resolve(file, options, bases, lints)?;
    match (graph.args.values.get_mut(epoch::NAME), epoch) {
        (Some(value), Some(epoch)) => *value = epoch.to_string(),
        (Some(_), None) => drop(graph.args.values.remove(epoch::NAME)),
        (None, _) => {}
    }
    Ok(graph)
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

fn build(file: &Dockerfile, options: &Options, graph: Graph) -> Result<Build, Problem> {
    let lints = graph.lints.clone();
    let mut lowering = Lowering::new(file, options, &graph, lints);
    let mut states = BTreeMap::new();
    for (at, node) in graph.nodes.iter().enumerate().take(graph.stages) {
        if node.is_needed || options.all_stages {
            let state = lowering.stage(at, &states)?;
            states.insert(at, state);
        }
    }
    let target =
        states.remove(&graph.target).ok_or_else(|| Problem::new(graph.node(graph.target).span, "no target"))?;
    lowering.finish(target)
}
