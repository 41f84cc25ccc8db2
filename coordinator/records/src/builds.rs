//! Records of builds.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use kiln_journal::{Batch, Durability, Range};
use kiln_proto::v1::{Build, NotificationQueued, SubmitRequest, event};
use prost::Message;

use super::{
    BUILDS, Error, EventLog, REQUEST_IDS, REQUESTS, Records, SUBMISSIONS, decoded, encoded, index, notifications,
};

/// Pauses between attempts to record the end of a build: eight attempts in half a minute.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(Duration::from_secs(16))
    .with_max_times(7);

impl Records {
    /// Records a build with its request. When this returns, both survive a power cut.
    pub async fn submit(&self, build: &Build, request: &SubmitRequest) -> Result<(), Error> {
        let mut batch =
            Batch::default().put(BUILDS, &build.id, encoded(build)).put(SUBMISSIONS, &build.id, encoded(request));
        batch = index::add(batch, build);
        if !request.request_id.is_empty() {
            batch = batch.put(REQUESTS, &request.request_id, build.id.clone()).put(
                REQUEST_IDS,
                &build.id,
                request.request_id.clone(),
            );
        }
        Ok(self.journal.commit(batch, Durability::Durable).await?)
    }

    /// Records the end of a build together with its last event and the calls of webhooks that are to tell of it. If the journal cannot be written, for example because
    /// the disk is full, retries for half a minute.
    pub async fn finish(
        &self,
        build: &Build,
        (events, last): (&EventLog, event::Event),
        calls: &[NotificationQueued],
    ) -> Result<(), Error> {
        for pause in PAUSES.build() {
            match self.try_finish(build, (events, last.clone()), calls).await {
                Err(kiln_journal::Error::Engine { .. } | kiln_journal::Error::Away { .. }) => {
                    tokio::time::sleep(pause).await
                }
                ended => return Ok(ended?),
            }
        }
        Ok(self.try_finish(build, (events, last), calls).await?)
    }

    async fn try_finish(
        &self,
        build: &Build,
        (events, last): (&EventLog, event::Event),
        calls: &[NotificationQueued],
    ) -> Result<(), kiln_journal::Error> {
        let batch = Batch::default().put(BUILDS, &build.id, encoded(build)).remove(SUBMISSIONS, &build.id);
        let batch = notifications::add(index::add(batch, build), calls);
        events.append_with(batch, last).await
    }

    /// The builds that have not ended, oldest first, with their requests.
    pub async fn unfinished(&self) -> Result<Vec<(Build, SubmitRequest)>, Error> {
        let mut found = Vec::new();
        for (id, request) in self.journal.list(SUBMISSIONS, Range::default()).await? {
            if let Some(build) = self.build(&id).await? {
                found.push((build, SubmitRequest::decode(request)?));
            }
        }
        Ok(found)
    }

    /// A build by its id.
    pub async fn build(&self, id: &str) -> Result<Option<Build>, Error> {
        let found = self.journal.get(BUILDS, id).await?;
        Ok(found.map(Build::decode).transpose()?)
    }

    /// The builds whose ids have this prefix, oldest first, at most `limit`.
    pub async fn builds_like(&self, prefix: &str, limit: usize) -> Result<Vec<Build>, Error> {
        let range = Range { limit: Some(limit), ..Range::prefix(prefix) };
        decoded(self.journal.list(BUILDS, range).await?)
    }

    /// The build that a request started.
    pub async fn request(&self, request_id: &str) -> Result<Option<String>, Error> {
        let found = self.journal.get(REQUESTS, request_id).await?;
        Ok(found.map(|id| String::from_utf8_lossy(&id).into_owned()))
    }

    /// The latest builds, newest first.
    pub async fn builds(&self, limit: usize) -> Result<Vec<Build>, Error> {
        decoded(self.journal.list(BUILDS, Range::last(limit)).await?)
    }
}
