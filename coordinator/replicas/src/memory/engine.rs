//! A tenant's journal in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_journal::{Engine, Entry, Error, Range, Space, Write};

use super::MemoryRegister;
use super::state::Journal;
use crate::replica::Term;

/// A tenant's journal, written by one term.
#[derive(Debug)]
pub(super) struct MemoryEngine {
    register: MemoryRegister,
    tenant: String,
    term: Term,
}

impl MemoryEngine {
    pub(super) fn new(register: MemoryRegister, tenant: &str, term: Term) -> Self {
        Self { register, tenant: tenant.to_owned(), term }
    }

    fn away(&self) -> Error {
        let source = Arc::new(crate::Error::Away { why: "its replica is cut off".to_owned() });
        Error::Away { journal: self.tenant.clone(), lost: false, source }
    }

    /// Reads the journal; an empty one where there is none yet.
    async fn read<T>(&self, read: impl FnOnce(&Journal) -> T + Send) -> Result<T, Error> {
        let found = self.register.path.call(|| match self.register.state.lock().journals.get(&self.tenant) {
            Some(journal) => read(journal),
            None => read(&Journal::default()),
        });
        found.await.ok_or_else(|| self.away())
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn commit(&self, batches: Vec<Arc<Vec<Write>>>, _sync: bool) -> Result<(), Error> {
        let committed = self.register.path.call(|| {
            let mut state = self.register.state.lock();
            let holds = state.holds((self.register.clock.0)(), &self.term);
            if !holds {
                state.refused += 1;
            } else {
                if state.wrote.last() != Some(&self.term) {
                    state.wrote.push(self.term.clone());
                }
                let journal = state.journals.entry(self.tenant.clone()).or_default();
                batches.iter().flat_map(|batch| batch.iter()).for_each(|write| journal.write(write));
            }
            holds
        });
        match committed.await {
            Some(true) => Ok(()),
            Some(false) => Err(Error::Fenced { journal: self.tenant.clone() }),
            None => Err(self.away()),
        }
    }

    async fn read(&self, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, Error> {
        let mut left = bytes;
        let mut entries = Vec::new();
        self.read(|journal| {
            for (position, data) in journal.streams.get(stream).into_iter().flat_map(|stream| stream.range(from..)) {
                if data.len() > left && !entries.is_empty() {
                    break;
                }
                left = left.saturating_sub(data.len());
                entries.push(Entry { position: *position, data: data.clone() });
            }
        })
        .await?;
        Ok(entries)
    }

    async fn end(&self, stream: &str) -> Result<u64, Error> {
        let last = |journal: &Journal| journal.streams.get(stream)?.last_key_value().map(|(last, _)| last + 1);
        Ok(self.read(last).await?.unwrap_or(0))
    }

    async fn get(&self, space: Space, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Error> {
        self.read(|journal| {
            let records = journal.spaces.get(space);
            keys.iter().map(|key| records.and_then(|records| records.get(key)).cloned()).collect()
        })
        .await
    }

    async fn list(&self, space: Space, range: Range) -> Result<Vec<(String, Bytes)>, Error> {
        let Range { prefix, after, backwards, limit } = range;
        let is_beyond = |key: &String| match &after {
            Some(after) if backwards => key < after,
            Some(after) => key > after,
            None => true,
        };
        self.read(|journal| {
            let records = journal.spaces.get(space).into_iter().flatten();
            let records = records.filter(|(key, _)| key.starts_with(&prefix) && is_beyond(key));
            let mut found: Vec<_> = records.map(|(key, value)| (key.clone(), value.clone())).collect();
            if backwards {
                found.reverse();
            }
            found.truncate(limit.unwrap_or(usize::MAX));
            found
        })
        .await
    }

    async fn count(&self, space: Space) -> Result<u64, Error> {
        self.read(|journal| journal.spaces.get(space).map_or(0, |records| records.len() as u64)).await
    }
}
