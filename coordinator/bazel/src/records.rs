//! Invocations in the journal.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_journal::{Batch, Durability, Journal, Range, Space};
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{Invocation, InvocationStatus};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Mutex as Turn;

use crate::open::Open;

/// Id to [`Invocation`].
const INVOCATIONS: Space = "invocations";
/// Time and id to an [`Invocation`] without details.
const ORDER: Space = "invocation-order";
/// Invocations that are kept; the oldest go first.
const KEPT: u64 = 1_000;
/// Bytes of output that are read at once.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Invocations that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] kiln_journal::Error),
    #[error("the journal has an invalid record of an invocation: {0}")]
    Decode(#[from] prost::DecodeError),
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// One tenant's invocations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Invocations {
    journal: Journal,
    open: Arc<Mutex<HashMap<String, Arc<Turn<Open>>>>>,
}

impl Invocations {
    /// Invocations in this journal.
    pub fn over(journal: Journal) -> Self {
        Self { journal, open: Arc::default() }
    }

    /// An invocation with all details.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn get(&self, id: &str) -> Result<Option<Invocation>, Error> {
        let found = self.journal.get(INVOCATIONS, id).await?;
        Ok(found.map(|data| self.shown(&data)).transpose()?)
    }

    /// The newest invocations without their details, from the one `before` this one.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn list(&self, limit: usize, before: &str) -> Result<Vec<Invocation>, Error> {
        let mut range = Range::last(limit);
        if !before.is_empty() {
            let Some(last) = self.get(before).await? else { return Ok(Vec::new()) };
            range = range.after(place(&last));
        }
        let found = self.journal.list(ORDER, range).await?;
        Ok(found.into_iter().map(|(_, data)| self.shown(&data)).collect::<Result<_, _>>()?)
    }

    /// What an invocation printed, from a position; and where the next part begins. Empty at the end.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn log(&self, id: &str, from: u64) -> Result<(Vec<u8>, u64), Error> {
        let entries = self.journal.read(&stream(id), from, READ_BYTES).await?;
        let next = entries.last().map_or(from, |entry| entry.position + 1);
        Ok((entries.iter().flat_map(|entry| entry.data.iter().copied()).collect(), next))
    }

    /// A record as it is shown: one that nobody adds to any more does not run.
    fn shown(&self, data: &[u8]) -> Result<Invocation, prost::DecodeError> {
        let mut invocation = Invocation::decode(data)?;
        let is_open = || self.open.lock().contains_key(&invocation.id);
        if invocation.status() == InvocationStatus::InvocationRunning && !is_open() {
            invocation.set_status(InvocationStatus::InvocationDisconnected);
        }
        Ok(invocation)
    }

    /// The invocation with this id, for a stream of its events; begun by this caller if there is none.
    pub(crate) async fn open(&self, id: &str, publisher: &str) -> Result<Arc<Turn<Open>>, Error> {
        if let Some(open) = self.open.lock().get(id) {
            return Ok(open.clone());
        }
        let known = match self.journal.get(INVOCATIONS, id).await? {
            Some(data) => Invocation::decode(data)?,
            None => {
                self.trim().await?;
                let (id, publisher) = (id.to_owned(), publisher.to_owned());
                let mut begun = Invocation { id, publisher, started: Some(now()), ..Invocation::default() };
                begun.set_status(InvocationStatus::InvocationRunning);
                begun
            }
        };
        let log = self.journal.resume_stream(&stream(id)).await?;
        let opened = Arc::new(Turn::new(Open::new(known, log)));
        Ok(self.open.lock().entry(id.to_owned()).or_insert(opened).clone())
    }

    /// No stream has this invocation any more.
    pub(crate) fn close(&self, id: &str, open: Arc<Turn<Open>>) {
        let mut all = self.open.lock();
        drop(open);
        if all.get(id).is_some_and(|open| Arc::strong_count(open) == 1) {
            all.remove(id);
        }
    }

    /// What is committed of an invocation, in place of what it was.
    pub(crate) fn record(invocation: &Invocation, was: &str) -> Batch {
        let place = place(invocation);
        let mut batch = Batch::default();
        if !was.is_empty() && was != place {
            batch = batch.remove(ORDER, was);
        }
        let batch = batch.put(INVOCATIONS, invocation.id.clone(), invocation.encode_to_vec());
        batch.put(ORDER, place, brief(invocation).encode_to_vec())
    }

    /// Commits a batch that belongs to no stream.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), Error> {
        Ok(self.journal.commit(batch, Durability::Relaxed).await?)
    }

    /// Makes room for another one.
    async fn trim(&self) -> Result<(), Error> {
        let count = self.journal.count(ORDER).await?;
        let surplus = usize::try_from((count + 1).saturating_sub(KEPT)).unwrap_or(usize::MAX);
        if surplus == 0 {
            return Ok(());
        }
        let mut batch = Batch::default();
        for (place, data) in self.journal.list(ORDER, Range::first(surplus)).await? {
            let id = Invocation::decode(data)?.id;
            batch = batch.remove(ORDER, place).remove(INVOCATIONS, id.clone()).remove_stream(&stream(&id));
        }
        self.commit(batch).await
    }
}

/// Where an invocation stands among all.
pub(crate) fn place(invocation: &Invocation) -> String {
    let started = invocation.started.unwrap_or_default();
    let millis = started.seconds.saturating_mul(1000) + i64::from(started.nanos) / 1_000_000;
    format!("{:020}-{}", millis.max(0), invocation.id)
}

/// The stream of an invocation's output.
fn stream(id: &str) -> String {
    format!("invocation/{id}")
}

fn now() -> Timestamp {
    kiln_proto::clock::now()
}

/// An invocation without its details.
fn brief(invocation: &Invocation) -> Invocation {
    Invocation {
        targets: Vec::new(),
        failed_actions: Vec::new(),
        tests: Vec::new(),
        files: Vec::new(),
        options: Vec::new(),
        ..invocation.clone()
    }
}
