//! Invocations in the journal.

use std::collections::HashMap;

use kiln_journal::{Batch, Durability, Journal, Range, Space, Stream};
use kiln_proto::v1::{Invocation, InvocationMetrics, RemoteAction};
use prost::Message;

use crate::values::cut;

/// Id to [`Invocation`].
const INVOCATIONS: Space = "invocations";
/// Time and id to an [`Invocation`] without details.
const ORDER: Space = "invocation-order";
/// Invocations that are kept; the oldest go first.
const KEPT: usize = 1_000;
/// Bytes of all invocations that are kept, with their output.
const KEPT_BYTES: u64 = 2 << 30;
/// Of an invocation in a list: patterns, entries of metadata, and the longest texts in bytes.
const BRIEF_PATTERNS: usize = 8;
const BRIEF_METADATA: usize = 16;
const BRIEF_TEXT: usize = 256;
const BRIEF_FAILURE: usize = 1 << 10;
/// What a list shows of the metadata.
const SHOWN: [&str; 5] = ["COMMIT_SHA", "STABLE_GIT_COMMIT", "BUILD_SCM_REVISION", "BUILD_USER", "BUILD_HOST"];
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
    #[error("{most} invocations tell of themselves now, the most that the farm allows a tenant; try again later")]
    Full { most: usize },
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Full { .. } => Self::resource_exhausted(error.to_string()),
            Error::Journal(_) | Error::Decode(_) => Self::unavailable(error.to_string()),
        }
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
        let next = entries.last().map_or(from, |entry| entry.position.saturating_add(1));
        Ok((entries.iter().flat_map(|entry| entry.data.iter().copied()).collect(), next))
    }

    /// Where an invocation's output goes.
    pub(crate) async fn output(&self, id: &str) -> Result<Stream, Error> {
        Ok(self.0.resume_stream(&stream(id)).await?)
    }

    /// Where the actions go that an invocation asks for, how many there are, and their bytes.
    pub(crate) async fn actions_of(&self, id: &str, is_new: bool) -> Result<(Stream, (usize, usize)), Error> {
        let known = if is_new { Vec::new() } else { self.actions(id, 0).await?.0 };
        let bytes = known.iter().map(Message::encoded_len).sum();
        Ok((self.0.resume_stream(&actions(id)).await?, (known.len(), bytes)))
    }

    /// The actions that an invocation asked for, from a position on, and the position after them.
    pub(crate) async fn actions(&self, id: &str, mut from: u64) -> Result<(Vec<RemoteAction>, u64), Error> {
        let mut all = Vec::new();
        loop {
            let entries = self.0.read(&actions(id), from, READ_BYTES).await?;
            let Some(last) = entries.last() else { return Ok((all, from)) };
            from = last.position.saturating_add(1);
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
        let all = self.0.list(ORDER, Range::default()).await?;
        let all = all.into_iter().map(|(place, data)| Ok((place, Invocation::decode(data)?)));
        let all: Vec<(String, Invocation)> = all.collect::<Result<_, Error>>()?;
        let bytes = |known: &Invocation| known.kept_bytes.saturating_add(known.printed_bytes);
        let mut left: u64 = all.iter().map(|(_, known)| bytes(known)).sum();
        let count = all.len();
        let mut batch = Batch::default();
        for (number, (place, known)) in all.into_iter().enumerate() {
            if count.saturating_sub(number) < KEPT && left <= KEPT_BYTES {
                break;
            }
            left = left.saturating_sub(bytes(&known));
            batch = batch.remove(ORDER, place).remove(INVOCATIONS, known.id.clone());
            batch = batch.remove_stream(&stream(&known.id)).remove_stream(&actions(&known.id));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.commit(batch).await
    }
}

/// Where an invocation stands among all: by when the farm first heard of it, whatever it says itself.
pub(crate) fn place(invocation: &Invocation) -> String {
    let first = invocation.received.or(invocation.started).unwrap_or_default();
    let millis = first.seconds.saturating_mul(1000).saturating_add(i64::from(first.nanos) / 1_000_000);
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

/// An invocation without its details: so small that many fit into an answer.
fn brief(invocation: &Invocation) -> Invocation {
    let short = |text: &String| cut(text, BRIEF_TEXT);
    let is_short = |(key, value): &(&String, &String)| key.len().saturating_add(value.len()) <= BRIEF_TEXT;
    let mut metadata: Vec<(&String, &String)> = invocation.metadata.iter().filter(is_short).collect();
    // What a list shows comes first.
    metadata.sort_by_key(|(key, _)| (!SHOWN.contains(&key.as_str()), *key));
    let metadata = metadata.into_iter().take(BRIEF_METADATA);
    Invocation {
        id: invocation.id.clone(),
        publisher: short(&invocation.publisher),
        command: short(&invocation.command),
        patterns: invocation.patterns.iter().take(BRIEF_PATTERNS).map(short).collect(),
        tool_version: short(&invocation.tool_version),
        workspace: short(&invocation.workspace),
        started: invocation.started,
        finished: invocation.finished,
        received: invocation.received,
        status: invocation.status,
        exit_code: invocation.exit_code,
        exit_name: short(&invocation.exit_name),
        failure: cut(&invocation.failure, BRIEF_FAILURE),
        metadata: metadata.map(|(key, value)| (key.clone(), value.clone())).collect(),
        counts: invocation.counts,
        metrics: invocation.metrics.clone().map(|metrics| InvocationMetrics { runners: HashMap::new(), ..metrics }),
        is_cut: invocation.is_cut,
        printed_bytes: invocation.printed_bytes,
        kept_bytes: invocation.kept_bytes,
        last_event: invocation.last_event,
        ..Invocation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_has_of_an_invocation_is_small_whatever_it_says() {
        let long = "ä".repeat(16 << 10);
        let metadata = (0..500).map(|number| (format!("KEY{number}"), number.to_string()));
        let known = Invocation {
            command: long.clone(),
            patterns: vec![long.clone(); 500],
            failure: long.clone(),
            workspace: long.clone(),
            metadata: metadata.chain([("COMMIT_SHA".into(), "4f2c".into()), ("LONG".into(), long.clone())]).collect(),
            ..Invocation::default()
        };
        let brief = brief(&known);
        let listed = 1_000 * brief.encoded_len();
        assert!(listed < kiln_proto::channel::MAX_MESSAGE_BYTES, "expected a list to fit into a message: {listed}");
        assert_eq!((brief.metadata.len(), brief.metadata["COMMIT_SHA"].as_str()), (BRIEF_METADATA, "4f2c"));
    }
}
