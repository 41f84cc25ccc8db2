//! Calls of webhooks about the ends of builds: those that are to be made, and of each build what became of them.
//!
//! Invariant: what is to be called is recorded in the transaction that records the end, and leaves the queue when the outcome is recorded.

use kiln_journal::{Batch, Durability, Range};
use kiln_proto::v1::notification::State;
use kiln_proto::v1::{Notification, NotificationQueued};
use prost::Message;

use super::{Error, NOTIFICATION_QUEUE, NOTIFICATIONS, Records, decoded, encoded};

/// The key of a call: the number of the call among those of its build keeps their order.
fn key(build: &str, number: usize) -> String {
    format!("{build}/{number:04}")
}

/// Adds the calls of a build that ends. One that is given up from the start is only remembered.
pub(super) fn add(mut batch: Batch, calls: &[NotificationQueued]) -> Batch {
    for (number, call) in calls.iter().enumerate() {
        let (key, shown) = (key(&call.build, number), call.notification.clone().unwrap_or_default());
        batch = batch.put(NOTIFICATIONS, &key, encoded(&shown));
        if shown.state() == State::Pending {
            batch = batch.put(NOTIFICATION_QUEUE, key, encoded(call));
        }
    }
    batch
}

impl Records {
    /// The calls about a build's end.
    pub async fn notifications(&self, build: &str) -> Result<Vec<Notification>, Error> {
        decoded(self.journal.list(NOTIFICATIONS, Range::prefix(format!("{build}/"))).await?)
    }

    /// The keys of the calls that are to be made, with what is to be called, beyond a key.
    pub async fn queued(&self, after: &str, limit: usize) -> Result<Vec<(String, NotificationQueued)>, Error> {
        let range = Range { after: Some(after.to_owned()).filter(|after| !after.is_empty()), ..Range::first(limit) };
        let found = self.journal.list(NOTIFICATION_QUEUE, range).await?;
        found.into_iter().map(|(key, data)| Ok((key, NotificationQueued::decode(data)?))).collect()
    }

    /// How many calls are to be made.
    pub async fn queue_length(&self) -> Result<u64, Error> {
        Ok(self.journal.count(NOTIFICATION_QUEUE).await?)
    }

    /// The key of a build's call.
    pub fn queue_key(build: &str, number: usize) -> String {
        key(build, number)
    }

    /// A call that is to be made, unless its build has been deleted.
    pub async fn queued_call(&self, key: &str) -> Result<Option<NotificationQueued>, Error> {
        let found = self.journal.get(NOTIFICATION_QUEUE, key).await?;
        Ok(found.map(NotificationQueued::decode).transpose()?)
    }

    /// Records what became of an attempt, unless the build has been deleted in the meantime.
    pub async fn attempted(&self, key: &str, call: &NotificationQueued) -> Result<(), Error> {
        if self.journal.get(NOTIFICATION_QUEUE, key).await?.is_none() {
            return Ok(());
        }
        let shown = call.notification.clone().unwrap_or_default();
        let batch = Batch::default().put(NOTIFICATIONS, key, encoded(&shown));
        let batch = match shown.state() {
            State::Pending => batch.put(NOTIFICATION_QUEUE, key, encoded(call)),
            State::Delivered | State::GivenUp => batch.remove(NOTIFICATION_QUEUE, key),
        };
        Ok(self.journal.commit(batch, Durability::Relaxed).await?)
    }

    /// Removes what is remembered of a build's calls, and those that remain.
    pub(super) async fn forget_notifications(&self, mut batch: Batch, build: &str) -> Result<Batch, Error> {
        for (key, _) in self.journal.list(NOTIFICATIONS, Range::prefix(format!("{build}/"))).await? {
            batch = batch.remove(NOTIFICATIONS, key.clone()).remove(NOTIFICATION_QUEUE, key);
        }
        Ok(batch)
    }
}
