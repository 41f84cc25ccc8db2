//! Layers: which steps' results the farm has cached, how often they were hit, and why one missed.
//!
//! A build tells of each step that ended; one task writes that down, beside the builds.
//! Invariant: the action cache alone decides what is a hit. What is kept here only describes it, so that losing a record, or
//! failing to write one, never changes or delays a build.

mod diff;
mod error;
mod explain;
mod import;
mod inputs;
mod list;
mod merge;
mod outputs;
mod own;
mod prune;
mod record;
mod recorder;
mod shared;
mod status;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use kiln_proto::digest::Digest;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::{Ingredients, StepLayers, StepRef};
use kiln_proto::{clock, reapi};
use tokio::sync::{Mutex, mpsc, oneshot};

pub use error::Error;
pub use own::OwnLayers;
pub use prune::Prune;
pub use shared::SharedLayers;

use kiln_store::Stores;

/// Ended steps that wait to be written down; what comes beyond is left out.
const QUEUE: usize = 4_096;
/// How long a reader, or the end of the process, waits for what is queued.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known of one step on one target: this coordinator's own part of the record, and those of others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// What this coordinator wrote; the only part that it changes.
    pub own: StepLayers,
    /// What others wrote.
    pub others: Vec<StepLayers>,
}

impl Known {
    /// The record as all coordinators tell it.
    pub fn all(&self) -> StepLayers {
        let own = (self.own != StepLayers::default()).then_some(&self.own);
        merge::merge(own.into_iter().chain(&self.others))
    }
}

/// Keeps records, each one message under one key of an instance.
#[async_trait]
pub trait LayerStore: Send + Sync + Debug {
    /// What is known under each key, in the same order.
    async fn get(&self, instance: &str, keys: &[String]) -> Result<Vec<Known>, Error>;

    /// Puts own parts of records in place of what they were, all of them or none.
    async fn put(&self, instance: &str, records: Vec<(String, StepLayers)>) -> Result<(), Error>;

    /// All that is known in an instance, with the keys.
    async fn list(&self, instance: &str) -> Result<Vec<(String, Known)>, Error>;

    /// Takes records away, whoever's they are.
    async fn remove(&self, instance: &str, keys: &[String]) -> Result<(), Error>;

    /// Waits until all that was written so far is on the disk.
    async fn settle(&self) -> Result<(), Error>;

    /// What stands in the way of a change that all coordinators are to see; none where nothing does.
    fn hindrance(&self) -> Option<String> {
        None
    }
}

/// A step of a build that ended.
pub struct Ran {
    /// REAPI instance name.
    pub instance: String,
    /// The project's name.
    pub project: String,
    /// Which action of the build.
    pub step: StepRef,
    /// The build's id.
    pub build: String,
    /// Whose build it is.
    pub user: String,
    /// The action.
    pub action: Digest,
    /// Where the result came from.
    pub cache: Cache,
    /// It left all that it should.
    pub ok: bool,
    /// The build asked to run every step again.
    pub no_cache: bool,
    /// The step's result may be cached.
    pub cacheable: bool,
    /// It was run although its result was, or may have been, cached.
    pub again: bool,
    /// Fingerprint of its environment, or its image.
    pub environment: String,
    /// That environment's os-release.
    pub os: String,
    /// What it left.
    pub result: reapi::ActionResult,
    /// What the action was made of, worked out only where that is not known yet; in words why it cannot be.
    pub ingredients: BoxFuture<'static, Result<Ingredients, String>>,
}

enum Message {
    Ran(Box<Ran>, i64),
    /// All that was told before is written down.
    Settle(oneshot::Sender<()>),
}

/// The layers of the farm. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Layers {
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
}

#[derive(Debug)]
struct Shared {
    records: Arc<dyn LayerStore>,
    stores: Stores,
    /// Whoever reads a record to write it again holds this.
    writing: Mutex<()>,
}

impl Layers {
    /// Starts the task that writes down what builds tell.
    pub fn spawn(records: Arc<dyn LayerStore>, stores: Stores) -> Self {
        let shared = Arc::new(Shared { records, stores, writing: Mutex::default() });
        let (messages, queue) = mpsc::channel(QUEUE);
        tokio::spawn(recorder::run(shared.clone(), queue));
        Self { shared, messages }
    }

    /// Tells of a step that ended. Returns at once; where too many wait, this one is left out.
    pub fn record(&self, ran: Ran) {
        if self.messages.try_send(Message::Ran(Box::new(ran), now_ms())).is_err() {
            tracing::debug!("too many ended steps wait to be written down; one is left out of `kiln cache`");
        }
    }

    /// Whether a step of a project hit before.
    ///
    /// # Errors
    /// Where the index fails.
    pub async fn has_hit(&self, instance: &str, project: &str, step: &StepRef) -> Result<bool, Error> {
        let known = self.shared.records.get(instance, &[key(project, step)]).await?;
        Ok(known.iter().any(|known| known.all().users.values().any(|counts| counts.hits > 0)))
    }

    /// Waits, but not for ever, until all that was told so far is on the disk: what a caller is shown after this outlives the coordinator.
    pub async fn settle(&self) {
        let settled = async {
            let (sender, receiver) = oneshot::channel();
            if self.messages.send(Message::Settle(sender)).await.is_ok() {
                let _ = receiver.await;
            }
            if let Err(error) = self.shared.records.settle().await {
                tracing::warn!(%error, "what `kiln cache` shows may be lost if the coordinator is killed now");
            }
        };
        if tokio::time::timeout(SETTLE_TIMEOUT, settled).await.is_err() {
            tracing::debug!("the latest steps are not yet written down for `kiln cache`");
        }
    }
}

fn now_ms() -> i64 {
    let now = clock::now();
    now.seconds * 1000 + i64::from(now.nanos / 1_000_000)
}

fn timestamp(ms: i64) -> Option<Timestamp> {
    (ms > 0).then(|| Timestamp { seconds: ms / 1000, nanos: (ms % 1000) as i32 * 1_000_000 })
}

impl Shared {
    /// Every record of an instance as all coordinators tell it, with its key.
    async fn list(&self, instance: &str) -> Result<Vec<(String, StepLayers)>, Error> {
        let known = self.records.list(instance).await?;
        Ok(known.into_iter().map(|(key, known)| (key, known.all())).collect())
    }
}

/// The key of a step's record: it names the project, the step, the target and the shard.
fn key(project: &str, step: &StepRef) -> String {
    let shard = step.shard.to_string();
    [project, &step.step, &step.platform, &step.target, &shard].join("\0")
}

/// Whether a record is of this project and this step; an empty name is every one.
fn is_of(record: &StepLayers, project: &str, step: &str) -> bool {
    let name = record.step.as_ref().map_or("", |step| step.step.as_str());
    (project.is_empty() || record.project == project) && (step.is_empty() || name == step)
}

#[cfg(test)]
mod tests;
