//! Step results: what the farm has cached, how often each was hit, and why a step missed.
//!
//! A build reports each finished step; one task records it, in the background.
//! Invariant: only the action cache decides what is a hit. The records merely describe it, so losing one, or failing to
//! write one, never changes or delays a build.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

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

/// Finished steps that wait to be recorded; any beyond that are dropped.
const QUEUE: usize = 4_096;
/// How long a reader, or the end of the process, waits for what is queued.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known about one step on one target: this coordinator's part of the record, and other coordinators' parts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// The part that this coordinator wrote, and the only one that it changes.
    pub own: StepLayers,
    /// The parts that others wrote.
    pub others: Vec<StepLayers>,
}

impl Known {
    /// The merged record, which is the same on all coordinators.
    pub fn all(&self) -> StepLayers {
        let own = (self.own != StepLayers::default()).then_some(&self.own);
        merge::merge(own.into_iter().chain(&self.others))
    }
}

/// Keeps records, each one message under a key of an instance.
#[async_trait]
pub trait LayerStore: Send + Sync + Debug {
    /// What is known under each key, in the same order.
    async fn get(&self, instance: &str, keys: &[String]) -> Result<Vec<Known>, Error>;

    /// Replaces this coordinator's parts of records, all of them or none.
    async fn put(&self, instance: &str, records: Vec<(String, StepLayers)>) -> Result<(), Error>;

    /// All records of an instance, with their keys.
    async fn list(&self, instance: &str) -> Result<Vec<(String, Known)>, Error>;

    /// Removes records, whichever coordinators wrote them.
    async fn remove(&self, instance: &str, keys: &[String]) -> Result<(), Error>;

    /// Waits until everything written so far is on disk.
    async fn settle(&self) -> Result<(), Error>;

    /// Why a change that all coordinators must see is not possible now; `None` if it is.
    fn hindrance(&self) -> Option<String> {
        None
    }
}

/// A finished step of a build.
pub struct Ran {
    /// REAPI instance name.
    pub instance: String,
    /// The project's name.
    pub project: String,
    /// Which action of the build.
    pub step: StepRef,
    /// The build's id.
    pub build: String,
    /// The build's owner.
    pub user: String,
    /// The action.
    pub action: Digest,
    /// Where the result came from.
    pub cache: Cache,
    /// It produced all its outputs.
    pub ok: bool,
    /// The build was asked to run every step again.
    pub no_cache: bool,
    /// The step's result may be cached.
    pub cacheable: bool,
    /// It ran although its result was, or may have been, cached.
    pub again: bool,
    /// Fingerprint of its environment, or its image.
    pub environment: String,
    /// That environment's os-release.
    pub os: String,
    /// Its result.
    pub result: reapi::ActionResult,
    /// What the action was made of, computed only if not known yet; an error says why it cannot be.
    pub ingredients: BoxFuture<'static, Result<Ingredients, String>>,
}

enum Message {
    Ran(Box<Ran>, i64),
    /// Everything reported before is recorded.
    Settle(oneshot::Sender<()>),
}

/// The farm's step results. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Layers {
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
}

#[derive(Debug)]
struct Shared {
    records: Arc<dyn LayerStore>,
    stores: Stores,
    /// Held by whoever reads a record to write it again.
    writing: Mutex<()>,
}

impl Layers {
    /// Starts the task that records what builds report.
    pub fn spawn(records: Arc<dyn LayerStore>, stores: Stores) -> Self {
        let shared = Arc::new(Shared { records, stores, writing: Mutex::default() });
        let (messages, queue) = mpsc::channel(QUEUE);
        tokio::spawn(recorder::run(shared.clone(), queue));
        Self { shared, messages }
    }

    /// Reports a finished step. Returns at once; if too many are waiting, this one is dropped.
    pub fn record(&self, ran: Ran) {
        if self.messages.try_send(Message::Ran(Box::new(ran), now_ms())).is_err() {
            tracing::debug!("too many finished steps are waiting to be recorded; `kiln cache` will lack one");
        }
    }

    /// Whether a step of a project had a cache hit before.
    ///
    /// # Errors
    /// If the index fails.
    pub async fn has_hit(&self, instance: &str, project: &str, step: &StepRef) -> Result<bool, Error> {
        let known = self.shared.records.get(instance, &[key(project, step)]).await?;
        Ok(known.iter().any(|known| known.all().users.values().any(|counts| counts.hits > 0)))
    }

    /// Waits, up to a limit, until everything reported so far is on disk: whatever a caller is shown after this
    /// survives the coordinator.
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
            tracing::debug!("the latest steps are not yet recorded for `kiln cache`");
        }
    }
}

fn now_ms() -> i64 {
    let now = clock::now();
    now.seconds.saturating_mul(1000).saturating_add(i64::from(now.nanos / 1_000_000))
}

fn timestamp(ms: i64) -> Option<Timestamp> {
    (ms > 0).then(|| Timestamp { seconds: ms / 1000, nanos: ((ms % 1000) as i32).saturating_mul(1_000_000) })
}

impl Shared {
    /// Every merged record of an instance, with its key.
    async fn list(&self, instance: &str) -> Result<Vec<(String, StepLayers)>, Error> {
        let known = self.records.list(instance).await?;
        Ok(known.into_iter().map(|(key, known)| (key, known.all())).collect())
    }
}

/// The key of a step's record: made of the project, the step, the target and the shard.
fn key(project: &str, step: &StepRef) -> String {
    let shard = step.shard.to_string();
    [project, &step.step, &step.platform, &step.target, &shard].join("\0")
}

/// Whether a record is of this project and step; an empty name matches all.
fn is_of(record: &StepLayers, project: &str, step: &str) -> bool {
    let name = record.step.as_ref().map_or("", |step| step.step.as_str());
    (project.is_empty() || record.project == project) && (step.is_empty() || name == step)
}

#[cfg(test)]
mod tests;
