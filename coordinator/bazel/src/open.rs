//! An invocation whose events arrive.

use bytes::Bytes;
use kiln_journal::{Durability, Stream};
use kiln_proto::build_events::BuildEvent;
use kiln_proto::v1::Invocation;
use prost::Message;

use crate::digest::Digest;
use crate::records::{Error, Records, place};
use crate::room::Memory;

/// Output of an invocation that is kept, in bytes.
const MAX_LOG: u64 = 8 << 20;

/// An invocation, and what of it is not committed yet.
#[derive(Debug)]
pub(crate) struct Open {
    digest: Digest,
    log: Stream,
    records: Records,
    /// Where it stands in the list; empty if it is not there yet.
    place: String,
    printed: Vec<u8>,
}

impl Open {
    pub(crate) fn new(known: Invocation, memory: Memory, log: Stream, records: Records) -> Self {
        let place = if known.last_event == 0 { String::new() } else { place(&known) };
        Self { digest: Digest::of(known, memory), log, records, place, printed: Vec::new() }
    }

    /// Who began it.
    pub(crate) fn publisher(&self) -> &str {
        &self.digest.invocation.publisher
    }

    /// How much a commit writes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.digest.invocation.encoded_len().saturating_add(self.printed.len())
    }

    /// Takes in an event, unless it has it already.
    pub(crate) fn take(&mut self, sequence: i64, event: Option<BuildEvent>) {
        if sequence <= self.digest.invocation.last_event {
            return;
        }
        self.digest.invocation.last_event = sequence;
        let Some(mut printed) = event.map(|event| self.digest.take(event)) else { return };
        let invocation = &mut self.digest.invocation;
        let room = usize::try_from(MAX_LOG.saturating_sub(invocation.printed_bytes)).unwrap_or(usize::MAX);
        if printed.len() > room {
            printed.truncate(room);
            invocation.is_cut = true;
        }
        invocation.printed_bytes = invocation.printed_bytes.saturating_add(printed.len() as u64);
        self.printed.append(&mut printed);
    }

    /// Commits what was taken in: all of it, or none.
    pub(crate) async fn commit(&mut self) -> Result<(), Error> {
        self.log.room().await;
        self.digest.invocation.kept_bytes = self.bytes() as u64;
        let batch = Records::batch(&self.digest.invocation, &self.place);
        if self.printed.is_empty() {
            self.records.commit(batch).await?;
        } else {
            let printed = Bytes::from(std::mem::take(&mut self.printed));
            let committed = self.log.append_with(batch, Durability::Relaxed, |_| printed.clone()).await;
            if let Err(error) = committed {
                // Its events count as taken in: the next commit has what they printed.
                self.printed = printed.into();
                return Err(error.into());
            }
        }
        self.place = place(&self.digest.invocation);
        Ok(())
    }
}
