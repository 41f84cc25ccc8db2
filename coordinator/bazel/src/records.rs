//! Invocations in the journal.

use kiln_journal::{Batch, Durability, Journal, Range, Space, Stream};
use kiln_proto::v1::{Invocation, RemoteAction};
use prost::Message;

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

/// One tenant's records. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Records(Journal);

impl Records {
    pub(crate) fn over(journal: Journal) -> Self {
        Self(journal)
    }

    pub(crate) async fn get(&self, id: &str) -> Result<Option<Invocation>, Error> {
        let found = self.0.get(INVOCATIONS, id).await?;
        Ok(found.map(Invocation::decode).transpose()?)
    }

    /// The newest ones without their details, from the one `before` this one.
    pub(crate) async fn list(&self, limit: usize, before: &str) -> Result<Vec<Invocation>, Error> {
        let mut range = Range::last(limit);
        if !before.is_empty() {
            let Some(last) = self.get(before).await? else { return Ok(Vec::new()) };
            range = range.after(place(&last));
        }
        let found = self.0.list(ORDER, range).await?;
        Ok(found.into_iter().map(|(_, data)| Invocation::decode(data)).collect::<Result<_, _>>()?)
    }

    /// What an invocation printed, from a position; and where the next part begins. Empty at the end.
    pub(crate) async fn log(&self, id: &str, from: u64) -> Result<(Vec<u8>, u64), Error> {
        let entries = self.0.read(&stream(id), from, READ_BYTES).await?;
        let next = entries.last().map_or(from, |entry| entry.position + 1);
        Ok((entries.iter().flat_map(|entry| entry.data.iter().copied()).collect(), next))
    }

    /// Where an invocation's output goes.
    pub(crate) async fn output(&self, id: &str) -> Result<Stream, Error> {
        Ok(self.0.resume_stream(&stream(id)).await?)
    }

    /// Where the actions go that an invocation asks for, and how many there are.
    pub(crate) async fn actions_of(&self, id: &str, is_new: bool) -> Result<(Stream, usize), Error> {
        let count = if is_new { 0 } else { self.actions(id).await?.len() };
        Ok((self.0.resume_stream(&actions(id)).await?, count))
    }

    /// The actions that an invocation asked for.
    pub(crate) async fn actions(&self, id: &str) -> Result<Vec<RemoteAction>, Error> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let entries = self.0.read(&actions(id), from, READ_BYTES).await?;
            let Some(last) = entries.last() else { return Ok(all) };
            from = last.position + 1;
            for entry in entries {
                all.push(RemoteAction::decode(entry.data)?);
            }
        }
    }

    /// What is committed of an invocation, in place of what it was.
    pub(crate) fn batch(invocation: &Invocation, was: &str) -> Batch {
        let place = place(invocation);
        let mut batch = Batch::default();
        if !was.is_empty() && was != place {
            batch = batch.remove(ORDER, was);
        }
        let batch = batch.put(INVOCATIONS, invocation.id.clone(), invocation.encode_to_vec());
        batch.put(ORDER, place, brief(invocation).encode_to_vec())
    }

    /// Commits a batch that belongs to no output.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), Error> {
        Ok(self.0.commit(batch, Durability::Relaxed).await?)
    }

    /// Makes room for another one.
    pub(crate) async fn trim(&self) -> Result<(), Error> {
        let count = self.0.count(ORDER).await?;
        let surplus = usize::try_from((count + 1).saturating_sub(KEPT)).unwrap_or(usize::MAX);
        if surplus == 0 {
            return Ok(());
        }
        let mut batch = Batch::default();
        for (place, data) in self.0.list(ORDER, Range::first(surplus)).await? {
            let id = Invocation::decode(data)?.id;
            batch = batch.remove(ORDER, place).remove(INVOCATIONS, id.clone());
            batch = batch.remove_stream(&stream(&id)).remove_stream(&actions(&id));
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

/// The stream of the actions that an invocation asked for.
fn actions(id: &str) -> String {
    format!("invocation-actions/{id}")
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
