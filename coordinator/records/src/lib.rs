//! Records of builds and artifacts: typed records and events on top of the journal.
//!
//! Invariants: a build's submission is recorded completely or not at all, and so is its end, with its last event; an
//! artifact's id never changes its content.

mod artifacts;
mod builds;
mod durations;
mod events;
mod import;
mod index;
mod notifications;
mod outcomes;
mod reproducibility;
mod retention;
mod shells;

use std::sync::Arc;

use bytes::Bytes;
use kiln_journal::{Journal, Space};
use kiln_proto::v1::Artifact;
use prost::Message;
use tokio::sync::Mutex;

pub use durations::tests_key;
pub use events::EventLog;
pub use index::brief;
pub use outcomes::Run;
pub use retention::{InvalidKeep, Keep};

/// Build id to [`Build`](kiln_proto::v1::Build). Ids sort by time.
const BUILDS: Space = "builds";
/// Id of an unfinished build to its request.
const SUBMISSIONS: Space = "submissions";
/// The client's own request id to the build id.
const REQUESTS: Space = "requests";
/// Build id to the client's own request id.
const REQUEST_IDS: Space = "request-ids";
/// Build id to the [`Shells`](shells::Shells) that were opened in its steps' places.
const SHELLS: Space = "shells";
/// Build id and number to [`Notification`](kiln_proto::v1::Notification).
const NOTIFICATIONS: Space = "notifications";
/// The same of those that are to be made, to [`NotificationQueued`](kiln_proto::v1::NotificationQueued).
const NOTIFICATION_QUEUE: Space = "notification-queue";
/// Artifact id to [`Artifact`].
const ARTIFACTS: Space = "artifacts";
/// Artifact id to [`Found`](reproducibility::Found).
const REPRODUCIBILITY: Space = "reproducibility";
/// Sequence number to artifact id.
const ARTIFACT_ORDER: Space = "artifact-order";

/// Records that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] kiln_journal::Error),
    #[error("the journal has an invalid record of a build or an artifact: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("artifact `{id}` exists with content `{existing}`; refused new content `{offered}`")]
    Conflict { id: String, existing: String, offered: String },
    #[error("artifact `{id}` is not recorded any more")]
    NoArtifact { id: String },
    #[error("cannot import the builds of an earlier version from `{path}`: {source}")]
    Import {
        path: std::path::PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Records of one tenant's builds and artifacts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    journal: Journal,
    /// Held while an artifact is recorded, so that no id is given to two contents.
    artifacts: Arc<Mutex<artifacts::Order>>,
    /// Held while a shell is recorded.
    shells: Arc<Mutex<()>>,
}

impl Records {
    /// Records in this journal.
    pub fn over(journal: Journal) -> Self {
        Self { journal, artifacts: Arc::default(), shells: Arc::default() }
    }
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn decoded<T: Message + Default>(found: Vec<(String, Bytes)>) -> Result<Vec<T>, Error> {
    found.into_iter().map(|(_, data)| Ok(T::decode(data)?)).collect()
}

/// The stream of a build's events.
fn stream(build: &str) -> String {
    format!("build/{build}")
}

fn same(existing: Artifact, offered: &Artifact) -> Result<Artifact, Error> {
    if existing.root == offered.root && existing.digest_function == offered.digest_function {
        return Ok(existing);
    }
    let hash = |artifact: &Artifact| artifact.root.as_ref().map(|root| root.hash.clone()).unwrap_or_default();
    Err(Error::Conflict { id: existing.id.clone(), existing: hash(&existing), offered: hash(offered) })
}

#[cfg(test)]
mod tests;
