//! The events of builds: a journal stream for each build, read by any number of watchers from any offset.
//!
//! Invariant: offsets grow. After a crash, a resumed build's offsets continue beyond every offset that a watcher may
//! have seen.

use bytes::Bytes;
use kiln_journal::{Batch, Commit, Durability, Stream};
use kiln_proto::clock;
use kiln_proto::v1::{Event, event};
use prost::Message;
use tokio::sync::watch;

use super::{Error, Records, encoded, stream};

/// Bytes of events that are read at a time.
const PAGE_BYTES: usize = 256 << 10;

/// The events of a running build. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLog {
    stream: Stream,
}

fn at(event: event::Event) -> impl FnOnce(u64) -> Bytes {
    let at = Some(clock::now());
    move |offset| encoded(&Event { offset, at, event: Some(event) })
}

impl EventLog {
    /// Appends an event with the next offset and the current time. Returns at once: watchers see the event after the
    /// next commit, and it reaches the disk as `--fsync` says.
    pub fn append(&self, event: event::Event) {
        self.stream.append(at(event));
    }

    /// Appends an event together with other changes. When the returned commit resolves, they survive a power cut.
    pub(super) fn append_with(&self, batch: Batch, event: event::Event) -> Commit {
        self.stream.append_with(batch, Durability::Durable, at(event))
    }

    /// Waits until the journal has room for more.
    pub async fn room(&self) {
        self.stream.room().await;
    }

    /// Notifies of new events.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.stream.committed()
    }

    /// Wakes those that wait for events, because no more will come.
    pub fn close(&self) {
        self.stream.wake();
    }
}

impl Records {
    /// The events of a new build.
    pub fn new_events(&self, build: &str) -> EventLog {
        EventLog { stream: self.journal.new_stream(&stream(build)) }
    }

    /// The events of a build that an earlier process started.
    pub async fn resume_events(&self, build: &str) -> Result<EventLog, Error> {
        Ok(EventLog { stream: self.journal.resume_stream(&stream(build)).await? })
    }

    /// Events of a build from an offset on; empty if there are none yet.
    pub async fn events(&self, build: &str, offset: u64) -> Result<Vec<Event>, Error> {
        let entries = self.journal.read(&stream(build), offset, PAGE_BYTES).await?;
        entries.into_iter().map(|entry| Ok(Event::decode(entry.data)?)).collect()
    }
}
