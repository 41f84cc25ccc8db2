//! Records what a finished step was made of, as text that can be compared later.
//!
//! The text is derived from the messages that make up the action, so it contains everything that changes the action.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_proto::v1::Ingredients;
use kiln_proto::v1::step_finished::Cache;
use kiln_trees::tree::{Entry, Tree};
use tokio::task::JoinHandle;

use super::Work;
use super::lower::{Lowered, Lowering};
use super::source::SourceTree;
use super::steps::Job;
use kiln_layers::Ran;
use kiln_store::BlobStore;

/// The environment of a Dockerfile's commands, whose tools are their root's.
const IN_ROOT: &str = "Dockerfile";

/// How a step ended: what its cache record needs to know.
pub(super) struct End {
    pub(super) lowered: Lowered,
    pub(super) cache: Cache,
    pub(super) ok: bool,
    pub(super) result: reapi::ActionResult,
}

/// Records it. Returns at once.
pub(super) fn record(work: &Work, job: &Job, end: End) {
    let build = work.build.lock();
    let (project, id, user) = (build.project.clone(), build.id.clone(), build.user.clone());
    drop(build);
    let environment = &job.environment;
    let (environment, os) = match &job.step.image {
        Some(image) => (image.clone(), String::new()),
        None if job.rooted.is_some() => (IN_ROOT.to_owned(), String::new()),
        None => (environment.fingerprint.clone(), environment.os.clone()),
    };
    work.layers.record(Ran {
        instance: work.request.instance.trim_matches('/').to_owned(),
        project,
        step: job.reference(),
        build: id,
        user,
        action: end.lowered.digest,
        cache: end.cache,
        ok: end.ok,
        no_cache: work.request.no_cache,
        cacheable: job.step.cache,
        again: job.again,
        environment,
        os,
        result: end.result,
        ingredients: ingredients(
            work.source.clone(),
            work.stores.blobs.clone(),
            work.function,
            (job.clone(), end.lowered),
        ),
    });
}

/// How long a step's end waits for the answer whether the step hit before.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(50);

/// Whether a step that runs had a cache hit before; looked up while it runs.
pub(super) struct HitBefore(Option<JoinHandle<bool>>);

impl HitBefore {
    /// For a step that does not run, or that was told to run.
    pub(super) fn unasked() -> Self {
        Self(None)
    }

    /// Starts the lookup for a step that runs now.
    pub(super) fn ask(work: &Work, job: &Job) -> Self {
        if work.request.no_cache || job.again || !job.step.cache {
            return Self(None);
        }
        let (layers, step, project) = (work.layers.clone(), job.reference(), work.build.lock().project.clone());
        let instance = work.request.instance.trim_matches('/').to_owned();
        Self(Some(tokio::spawn(async move { layers.has_hit(&instance, &project, &step).await.unwrap_or(false) })))
    }

    /// The answer, if it is known by now.
    pub(super) async fn answer(self) -> bool {
        let Some(asked) = self.0 else { return false };
        tokio::time::timeout(ANSWER_TIMEOUT, asked).await.is_ok_and(|answer| answer.unwrap_or(false))
    }
}

/// What the job's action is made of; computed only when it is needed.
fn ingredients(
    source: Arc<SourceTree>,
    store: Arc<dyn BlobStore>,
    function: DigestFunction,
    (job, lowered): (Job, Lowered),
) -> BoxFuture<'static, Result<Ingredients, String>> {
    async move {
        let lowering = Lowering { source: &source, store: &*store, function };
        let root = if job.needs.is_empty() {
            lowered.input_root
        } else {
            let own = lowering.own_inputs(&job.step).await.map_err(|error| error.to_string())?;
            kiln_store::trees::store_tree(&*store, function, &own).await.map_err(|error| error.to_string())?
        };
        Ok(describe(&job, lowered, root))
    }
    .boxed()
}

fn describe(job: &Job, Lowered { action, command, .. }: Lowered, root: Digest) -> Ingredients {
    let platform = action.platform.unwrap_or_default();
    let environment = &job.environment;
    let mut found = Ingredients {
        input_root: root.to_string(),
        variables: command.environment_variables.into_iter().map(|one| (one.name, one.value)).collect(),
        command: command.arguments.last().cloned().unwrap_or_default(),
        properties: platform.properties.into_iter().map(|one| (one.name, one.value)).collect(),
        ..Default::default()
    };
    // In a root of its own, nothing of the worker's system matters.
    if job.step.image.is_none() && job.rooted.is_none() {
        let system = [
            ("os", &environment.os),
            ("libc", &environment.libc),
            ("isa", &environment.isa),
            ("packages", &environment.packages),
        ];
        found.system = system.map(|(name, value)| (name.to_owned(), value.clone())).into();
        found.tools = environment.tools.clone().into_iter().collect();
    }
    for (name, outputs) in job.needed.iter().zip(&job.needs) {
        leaves(&outputs.tree, &mut Vec::new(), &mut |path, value| {
            found.needs.insert(format!("{name}: {path}"), value);
        });
    }
    let timeout = job.step.timeout.map_or("the farm's".to_owned(), |timeout| format!("{} s", timeout.as_secs()));
    found.settings = BTreeMap::from([
        ("cache".to_owned(), job.step.cache.to_string()),
        ("outputs".to_owned(), command.output_paths.join(" ")),
        ("timeout".to_owned(), timeout),
    ]);
    found
}

/// The leaves of a tree of outputs: the digest of each file or directory, the target of each link.
fn leaves(tree: &Tree, above: &mut Vec<String>, tell: &mut impl FnMut(String, String)) {
    for (name, entry) in &tree.entries {
        above.push(name.clone());
        match entry {
            Entry::Directory(below) => leaves(below, above, tell),
            Entry::File { digest, .. } => tell(above.join("/"), digest.to_string()),
            Entry::Sealed { digest } => tell(above.join("/"), format!("{digest} directory")),
            Entry::Symlink { target } => tell(above.join("/"), format!("-> {target}")),
        }
        above.pop();
    }
}
