//! Carries out the operations of a lowered Dockerfile: those that only copy here, all others by whoever builds.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kiln_dockerfile::{BaseImage, Build, Context, Fetch, GitSource, Operation, Operator, Run};

use crate::{Error, Files, Roots};

/// What an operation needs that is not in the roots themselves.
#[async_trait]
pub trait Host: Send + Sync {
    /// Why it cannot be had.
    type Error: From<Error> + Send;

    /// The files of an image.
    async fn base(&self, image: &BaseImage) -> Result<Files, Self::Error>;

    /// The files of a context, without what its `.dockerignore` leaves out.
    async fn context(&self, context: &Context) -> Result<Files, Self::Error>;

    /// A root with the file at a URL, of the mode 0600.
    async fn fetch(&self, operation: &Operation, fetch: &Fetch) -> Result<Files, Self::Error>;

    /// The files of a repository.
    async fn git(&self, operation: &Operation, source: &GitSource) -> Result<Files, Self::Error>;

    /// Runs a command in `root` and gives the files that it leaves there. `mounted` are the files of other operations by their
    /// indices.
    async fn run(
        &self,
        operation: &Operation,
        run: &Run,
        root: &Files,
        mounted: &BTreeMap<usize, Files>,
    ) -> Result<Files, Self::Error>;
}

/// The files that each operation left, by its index.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub(crate) files: BTreeMap<usize, Files>,
}

impl Done {
    /// The files that an operation left; none if it was not carried out.
    pub fn of(&self, operation: usize) -> Option<&Files> {
        self.files.get(&operation)
    }
}

impl Roots {
    /// Carries out all operations, each as soon as those that it needs are done. After the first failure no further one begins.
    ///
    /// # Errors
    /// The first operation that failed, by its index, and why.
    pub async fn carry_out<H: Host>(&self, build: &Build, host: &H) -> Result<Done, (usize, H::Error)> {
        let mut done = Done::default();
        let mut waiting: Vec<usize> = (0..build.operations.len()).collect();
        let mut running = FuturesUnordered::new();
        loop {
            let is_ready = |at: &usize| {
                build
                    .operations
                    .get(*at)
                    .is_some_and(|operation| operation.inputs().iter().all(|input| done.files.contains_key(input)))
            };
            let (ready, later): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(is_ready);
            waiting = later;
            for at in ready {
                let Some(operation) = build.operations.get(at) else { continue };
                let needed = operation.inputs().into_iter();
                let inputs = needed.filter_map(|input| Some((input, done.files.get(&input)?.clone()))).collect();
                running.push(async move { (at, self.operation(operation, inputs, host).await) });
            }
            match running.next().await {
                Some((at, Ok(files))) => drop(done.files.insert(at, files)),
                Some((at, Err(error))) => return Err((at, error)),
                None => return Ok(done),
            }
        }
    }

    async fn operation<H: Host>(
        &self,
        operation: &Operation,
        inputs: BTreeMap<usize, Files>,
        host: &H,
    ) -> Result<Files, H::Error> {
        let of = |at: usize| {
            let gone = || Error::Absent { path: "the stage below".to_owned(), there: String::new() };
            inputs.get(&at).cloned().ok_or_else(gone)
        };
        match &operation.kind {
            Operator::Base { image, .. } => host.base(image).await,
            Operator::Scratch => Ok(self.scratch().await?),
            Operator::Context(context) => host.context(context).await,
            Operator::Fetch(fetch) => host.fetch(operation, fetch).await,
            Operator::Git(source) => host.git(operation, source).await,
            Operator::Run(run) => host.run(operation, run, &of(run.root)?, &inputs).await,
            Operator::Copy(copy) => Ok(self.copy(&of(copy.root)?, copy, &inputs).await?),
            Operator::Workdir { root, path, user } => Ok(self.workdir(&of(*root)?, path, user).await?),
        }
    }
}

/// The operations whose changes are the image's own layers, in order, each after the one that it changes. A context that the image is
/// built on changes none: all of it is a layer.
pub(crate) fn chain(build: &Build) -> Vec<(Option<usize>, usize)> {
    let (mut at, mut steps) = (build.result, Vec::new());
    while let Some(below) = build.operations.get(at).and_then(Operation::below) {
        steps.push((Some(below), at));
        at = below;
    }
    let first = build.operations.get(at).map(|operation| &operation.kind);
    if matches!(first, Some(Operator::Context(_) | Operator::Fetch(_) | Operator::Git(_))) {
        steps.push((None, at));
    }
    steps.reverse();
    steps
}
