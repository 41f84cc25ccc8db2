//! Steps that run in an image's file system: the image as a root, and the packages that a step adds to it.
//!
//! Invariant: such a step is keyed by the content of its root, not by the name or digest of its image, nor by any worker's tools.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_images::name::ImageName;
use kiln_planner::plan::{Base, Platform, Step};
use kiln_proto::digest::Digest;
use kiln_proto::property;
use kiln_roots::{Files, Roots};
use kiln_trees::root::Times;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::Work;
use super::images::{Refused, farms};
use super::rooted;
use super::steps::{self, Ended, Job};
use kiln_artifacts::Command;

/// Memory for a package manager: 2 GiB.
const MEMORY_BYTES: u64 = 2 << 30;

/// A root that steps run in.
#[derive(Debug)]
pub(super) struct Root {
    /// Its tree.
    pub(super) tree: Digest,
    /// The blob with the times of its nodes.
    pub(super) times: Digest,
    /// The environment variables of its image.
    pub(super) env: BTreeMap<String, String>,
    /// The image, named by digest.
    pub(super) image: String,
}

/// An image, packages and a platform.
type Key = (String, Vec<String>, Platform);
type Made = Arc<OnceCell<Result<Arc<Root>, Refused>>>;

/// The roots of a build.
#[derive(Debug, Default)]
pub(super) struct Known {
    made: Mutex<HashMap<Key, Made>>,
}

impl Known {
    /// Forgets them, because the store has lost something of one.
    pub(super) fn forget(&self) {
        self.made.lock().clear();
    }
}

/// Whether a job runs in its image's file system rather than in a container.
pub(super) async fn is_possible(work: &Work, job: &Job, image: &str) -> Result<bool, Refused> {
    if image.starts_with("./") {
        return Ok(true);
    }
    let name: ImageName = image.parse().map_err(|error: kiln_images::reference::Invalid| Refused {
        is_project_fault: true,
        words: error.to_string(),
    })?;
    match (&name, work.request.executor.as_str()) {
        (ImageName::Registry(_), property::SANDBOX) => return Ok(true),
        (ImageName::Registry(_), "") => {}
        (_, property::SANDBOX) => {
            let words = format!(
                "image `{image}` is in a Docker Engine alone; push it to a registry, or use `--executor docker`"
            );
            return Err(Refused { is_project_fault: true, words });
        }
        _ => return Ok(false),
    }
    let farm = work.execution.farm().await.map_err(|status| farms(status.message()))?;
    let executors = || {
        let environments = farm.workers.iter().filter_map(|worker| worker.environment.as_ref());
        environments
            .filter(|other| other.isa == job.target.platform.isa() && other.emulated == job.environment.emulated)
            .flat_map(|environment| &environment.executors)
    };
    let offers = |wanted: &str| executors().any(|executor| executor == wanted);
    Ok(offers(property::IN_ROOT) || !offers(property::DOCKER))
}

/// The root of a job that has an image, made once in a build.
pub(super) async fn root(work: &Work, job: &Job, image: &str) -> Result<Arc<Root>, Refused> {
    let key = (image.to_owned(), job.step.packages.clone(), job.target.platform);
    let cell = work.images.roots.made.lock().entry(key).or_default().clone();
    cell.get_or_init(|| Box::pin(make(work, job, image))).await.clone()
}

async fn make(work: &Work, job: &Job, image: &str) -> Result<Arc<Root>, Refused> {
    let instance = work.request.instance.trim_matches('/');
    let roots = Roots::new(work.stores.clone(), instance, work.function);
    let platform = kiln_images::platform::Platform::linux(job.target.platform.architecture());
    let base = match image.strip_prefix("docker://") {
        Some(name) => Base::Reference(name.to_owned()),
        None => Base::read(image),
    };
    let found = work.bases.root(&roots, &base, &work.source.tree, &platform).await;
    let found = found.map_err(|error| Refused {
        is_project_fault: error.is_project_fault(),
        words: format!("image `{image}`: {error}"),
    })?;
    let mut files = found.files;
    if !job.step.packages.is_empty() {
        files = installed(work, job, &roots, &files, &job.step.packages).await?;
    }
    let times = store_times(work, &files.times.flat()).await.map_err(farms)?;
    Ok(Arc::new(Root { tree: files.root, times, env: found.env, image: found.name }))
}

async fn store_times(work: &Work, times: &Times) -> Result<Digest, kiln_store::Error> {
    let data = times.encode();
    let digest = work.function.digest(&data);
    work.stores.blobs.put(&digest, data.into()).await?;
    Ok(digest)
}

/// Installs packages into a root, on a worker, by the root's own package manager.
pub(super) async fn installed(
    work: &Work,
    job: &Job,
    roots: &Roots,
    files: &Files,
    packages: &[String],
) -> Result<Files, Refused> {
    let name = format!("packages of {}", job.step.name);
    let times = store_times(work, &files.times.flat()).await.map_err(farms)?;
    let command = kiln_artifacts::install(&name, job.target.platform, &files.root, times, packages);
    let command = Command { no_cache: work.request.no_cache, ..command };
    let mut step = Step::new(name, command.run.argv.join(" "));
    step.why = "installs packages in its image".to_owned();
    step.inputs = vec!["!**".to_owned()];
    step.network = true;
    step.memory_bytes = MEMORY_BYTES;
    let job = Job {
        step,
        needed: Vec::new(),
        needs: Vec::new(),
        shard: 0,
        again: false,
        rooted: Some(Arc::new(command)),
        root: None,
        ..job.clone()
    };
    let span = job.span();
    let outputs = match tracing::Instrument::instrument(steps::run(work, job), span).await {
        Ended::Succeeded(finished) => finished.outputs,
        Ended::Failed(words) => return Err(Refused { is_project_fault: true, words }),
        Ended::FarmFailed(words) | Ended::InputsGone(words) => return Err(farms(words)),
    };
    let left = rooted::left(&outputs).ok_or_else(|| farms("the worker that installed packages reported no layer"))?;
    let times = work.stores.blobs.get(&left.times).await.map_err(farms)?;
    let times = Times::decode(&times).map_err(farms)?;
    roots.apply(files, &left.layer, &times).await.map_err(farms)
}
