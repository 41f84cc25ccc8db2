//! The images that steps run in, each resolved once in a build.
//!
//! A step runs in the image's file system, which the coordinator imports ([`in_root`]); or in a container, where the caller
//! wants that, where only an engine has the image, or where no worker runs anything in roots. The name for a container is resolved by a
//! worker, in an action like any other, with the credentials and the network that the pull will use. If no worker has Docker, the
//! scheduler reports that at once.
//!
//! Invariant: the action of a step names an image by digest or id, never by a tag.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_images::name::ImageName;
use kiln_images::reference::Invalid;
use kiln_planner::plan::{Platform, Step};
use kiln_proto::digest::Digest;
use kiln_proto::v1::{self, event};
use kiln_proto::{clock, property, reapi};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::OnceCell;
use tonic::Code;

use super::steps::{Ended, Job, is_farm_fault};
use super::{Work, in_root};
use kiln_execution::{Done, Request, Update};

/// How long a registry may take, including a pull if that is the only way to find the digest.
const RESOLVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10 * 60);
/// Resolving needs almost no resources.
const CPUS: &str = "0.01";
const MEMORY: &str = "1048576";

type Answer = Result<String, Refused>;
/// Resolved once, however many steps wait for it.
type Asked = Arc<OnceCell<Answer>>;

/// Why a name could not be resolved.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) is_project_fault: bool,
    pub(super) words: String,
}

pub(super) fn farms(words: impl std::fmt::Display) -> Refused {
    Refused { is_project_fault: false, words: words.to_string() }
}

/// The digests of a build's image names.
#[derive(Debug, Default)]
pub(crate) struct Images {
    answers: Mutex<HashMap<(String, Platform), Asked>>,
    pub(super) roots: in_root::Known,
}

impl Images {
    /// Makes the roots of images again when they are next asked for.
    pub(super) fn forget_roots(&self) {
        self.roots.forget();
    }
}

/// The job with its image named by digest, and with the root that it runs in if it runs in one; unchanged if it names no image.
pub(super) async fn fix(work: &Work, job: &Job) -> Result<Job, Ended> {
    let Some(image) = &job.step.image else { return Ok(job.clone()) };
    let image = work.pins.steps.get(&job.step.name).unwrap_or(image);
    if in_root::is_possible(work, job, image).await.map_err(|refused| refused.of(job))? {
        let root = in_root::root(work, job, image).await.map_err(|refused| refused.of(job))?;
        let step = Step { image: Some(root.image.clone()), ..job.step.clone() };
        return Ok(Job { step, root: Some(root), ..job.clone() });
    }
    if !job.step.packages.is_empty() {
        let words = "`packages` are installed in an image's file system, not in a container; remove them or `--executor docker`";
        return Err(Refused { is_project_fault: true, words: words.to_owned() }.of(job));
    }
    let cell = work.images.answers.lock().entry((image.clone(), job.target.platform)).or_default().clone();
    match cell.get_or_init(|| resolve(work, image, job)).await {
        Ok(fixed) => Ok(Job { step: Step { image: Some(fixed.clone()), ..job.step.clone() }, ..job.clone() }),
        Err(refused) => Err(refused.clone().of(job)),
    }
}

impl Refused {
    fn of(self, job: &Job) -> Ended {
        let words = format!("step `{}`: {}", job.step.name, self.words);
        if self.is_project_fault { Ended::Failed(words) } else { Ended::FarmFailed(words) }
    }
}

async fn resolve(work: &Work, image: &str, job: &Job) -> Answer {
    let name: ImageName =
        image.parse().map_err(|error: Invalid| Refused { is_project_fault: true, words: error.to_string() })?;
    if name.is_fixed() {
        return Ok(name.to_string());
    }
    let action = question(work, &name, job.target.platform).await.map_err(farms)?;
    let build = work.build.lock().clone();
    let request = Request {
        secrets: Vec::new(),
        agents: None,
        shell: None,
        instance: work.request.instance.trim_matches('/').to_owned(),
        action_digest: action,
        skip_cache_lookup: true,
        priority: work.request.priority,
        share: build.user,
        build: build.id,
        path_weight: job.path_weight,
        queue_timeout: work.queue_timeout(),
        known: None,
    };
    let mut attached = work.execution.execute(request).await.map_err(|status| farms(status.message()))?;
    let place = work.waits.begin(job);
    loop {
        match attached.next().await {
            Update::Queued => place.queued(attached.waiter()),
            Update::Executing { .. } => place.runs(),
            Update::Output { .. } | Update::Calls(_) | Update::Usage(_) => {}
            Update::Done(done) => return read(work, image, &done).await,
        }
    }
}

/// The action that resolves a name.
async fn question(work: &Work, name: &ImageName, platform: Platform) -> Result<Digest, kiln_store::Error> {
    let command = reapi::Command { arguments: vec![name.to_string(), platform.to_string()], ..Default::default() };
    let properties =
        [(property::EXECUTOR, property::IMAGE_RESOLVER), (property::CPUS, CPUS), (property::MEMORY, MEMORY)];
    let action = reapi::Action {
        command_digest: Some(put(work, &command).await?.to_wire()),
        input_root_digest: Some(put(work, &reapi::Directory::default()).await?.to_wire()),
        timeout: Some(clock::duration(RESOLVE_TIMEOUT)),
        do_not_cache: true,
        platform: Some(reapi::Platform {
            properties: properties
                .map(|(name, value)| reapi::platform::Property { name: name.to_owned(), value: value.to_owned() })
                .into(),
        }),
        ..Default::default()
    };
    put(work, &action).await
}

async fn put(work: &Work, message: &impl Message) -> Result<Digest, kiln_store::Error> {
    let data = message.encode_to_vec();
    let digest = work.function.digest(&data);
    work.stores.blobs.put(&digest, data.into()).await?;
    Ok(digest)
}

async fn read(work: &Work, image: &str, done: &Done) -> Answer {
    if let Some(status) = done.response.status.as_ref().filter(|status| status.code != Code::Ok as i32) {
        let is_project_fault = !done.farm_fault && !is_farm_fault(status);
        return Err(Refused { is_project_fault, words: status.message.clone() });
    }
    let result = done.response.result.clone().unwrap_or_default();
    if let Some(note) = text(work, result.stderr_digest.as_ref()).await.filter(|note| !note.is_empty()) {
        work.tell(event::Event::Warning(v1::Warning { text: note }));
    }
    let fixed: Option<ImageName> =
        text(work, result.stdout_digest.as_ref()).await.and_then(|text| text.trim().parse().ok());
    match fixed.filter(ImageName::is_fixed) {
        Some(name) => Ok(name.to_string()),
        None => Err(farms(format!("a worker did not report the digest of image `{image}`"))),
    }
}

async fn text(work: &Work, digest: Option<&reapi::Digest>) -> Option<String> {
    let digest = Digest::required(work.function, digest).ok()?;
    let data = work.stores.blobs.get(&digest).await.ok()?;
    Some(String::from_utf8_lossy(&data).into_owned())
}
