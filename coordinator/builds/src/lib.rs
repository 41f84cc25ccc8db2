//! Builds: from a source tree in the store to results and artifacts, with a log of events that outlives the process.
//!
//! Invariant: a build knows of actions only what any Remote Execution client would. It is resumed after a restart by running
//! its plan again: finished steps are cache hits, running ones are joined.

mod agents;
mod caches;
mod chosen;
mod fetching;
mod images;
mod in_root;
mod indexes;
mod layer;
mod libraries;
mod lookup;
pub mod lower;
mod metrics;
mod named;
mod native;
mod planning;
mod recent;
mod remarks;
mod reports;
mod resume;
mod retries;
mod rooted;
mod run;
mod settings;
mod shards;
mod shells;
pub mod source;
mod starting;
mod step_log;
mod steps;
mod submit;
mod turns;
mod verify;
mod waiting;
mod watch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use kiln_planner::plan::Plan;
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1::{Build, SubmitRequest};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use kiln_artifacts::Bases;
use kiln_auth::Identity;
use kiln_build_secrets::Secrets;
use kiln_execution::ExecutionHandle;
pub use kiln_histories::Histories;
use kiln_journal::Journal;
use kiln_layers::Layers;
use kiln_notify::Notices;
use kiln_records::EventLog;
pub use kiln_records::{Error as RecordsError, InvalidKeep, Keep, Records};
use kiln_store::Stores;
pub use metrics::BuildMetrics;
pub use settings::{Settings, Unfinished};
use source::SourceTree;
use turns::Turns;

/// Maximum trees that are read and planned at once.
const MAX_PLANNING: usize = 8;

/// All builds of the farm. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Builds {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stores: Stores,
    execution: ExecutionHandle,
    layers: Layers,
    records: Records,
    histories: Histories,
    settings: Settings,
    active: Mutex<HashMap<String, Active>>,
    shells: agents::OfShells,
    /// Submissions with the same request id are handled one at a time.
    submitting: Turns,
    places: Arc<Semaphore>,
    planning: Semaphore,
    native: native::Known,
    recent: recent::Recent,
    watches: Arc<Semaphore>,
    notices: Option<Notices>,
}

/// A running build.
#[derive(Debug, Clone)]
struct Active {
    build: Arc<Mutex<Build>>,
    events: EventLog,
    cancel: CancellationToken,
    secrets: Arc<Secrets>,
    agents: Arc<agents::Agents>,
    /// Counts against the limit of running builds.
    _place: Arc<Option<OwnedSemaphorePermit>>,
}

/// A build while it runs: what [`run`] works with.
pub(crate) struct Work {
    pub(crate) stores: Stores,
    pub(crate) execution: ExecutionHandle,
    pub(crate) layers: Layers,
    pub(crate) records: Records,
    pub(crate) histories: Histories,
    /// The tests of each shard, for the steps that have several.
    pub(crate) shares: std::collections::HashMap<String, Arc<shards::Shares>>,
    pub(crate) build: Arc<Mutex<Build>>,
    pub(crate) events: EventLog,
    pub(crate) cancel: CancellationToken,
    pub(crate) plan: Plan,
    pub(crate) source: Arc<SourceTree>,
    pub(crate) function: DigestFunction,
    pub(crate) bases: Bases,
    /// What names of images stand for, if an artifact is made again.
    pub(crate) pins: kiln_reproduce::Pins,
    /// Without its secrets, which are in memory only.
    pub(crate) request: SubmitRequest,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) agents: Arc<agents::Agents>,
    pub(crate) resumed: bool,
    pub(crate) allow_emulation: bool,
    pub(crate) metrics: Option<BuildMetrics>,
    /// What the build used and made stays in the store until it ends.
    _hold: kiln_store::Hold,
    pub(crate) images: images::Images,
    pub(crate) waits: waiting::Waits,
    pub(crate) places: run::places::Places,
    /// The build's owner, as far as authenticated.
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) notices: Option<Notices>,
    pub(crate) seen: verify::Seen,
}

/// An identity of which only the name is known.
fn named_user(user: &str) -> Identity {
    Identity { name: user.to_owned(), ..Identity::anonymous() }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// Records that cannot be read or written.
fn unread(error: kiln_records::Error) -> Status {
    match &error {
        kiln_records::Error::Journal(journal) if journal.is_transient() => Status::unavailable(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

impl Builds {
    /// Opens what an earlier run left in the journal; `settings` says what happens to its unfinished builds. Builds
    /// that an earlier version kept in the directory `old` are imported.
    ///
    /// # Errors
    /// If the journal cannot be used, or the builds of an earlier version cannot be imported.
    pub async fn open(
        journal: Journal,
        old: &Path,
        stores: Stores,
        execution: ExecutionHandle,
        layers: Layers,
        settings: Settings,
    ) -> Result<Self, RecordsError> {
        let histories = Histories::over(journal.clone());
        let records = Records::over(journal);
        records.import(old).await?;
        records.complete_index().await?;
        let notices = match settings.notifier.clone() {
            Some(notifier) => Some(Notices::open(notifier, &settings.tenant, records.clone()).await?),
            None => None,
        };
        let shared = Shared {
            stores,
            execution,
            layers,
            records,
            histories,
            settings,
            active: Mutex::default(),
            shells: Mutex::default(),
            submitting: Turns::default(),
            places: Arc::new(Semaphore::new(submit::MAX_ACTIVE)),
            planning: Semaphore::new(MAX_PLANNING),
            native: native::Known::default(),
            recent: recent::Recent::default(),
            watches: Arc::new(Semaphore::new(watch::MAX_WATCHES)),
            notices,
        };
        let builds = Self { shared: Arc::new(shared) };
        builds.resume_all().await?;
        tokio::spawn(trim_regularly(Arc::downgrade(&builds.shared)));
        Ok(builds)
    }

    /// What earlier runs of steps took.
    pub fn histories(&self) -> &Histories {
        &self.shared.histories
    }

    /// The records of builds and artifacts.
    pub fn records(&self) -> &Records {
        &self.shared.records
    }
}

/// Removes old builds at regular intervals, for as long as the `Builds` exist.
async fn trim_regularly(shared: Weak<Shared>) {
    let Some(every) = shared.upgrade().map(|shared| shared.settings.trim_every) else { return };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        Builds { shared }.trim().await;
    }
}

#[cfg(test)]
mod tests;
