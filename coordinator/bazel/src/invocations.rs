//! All invocations of a tenant: those whose events arrive, and the others.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_journal::Journal;
use kiln_proto::v1::{Invocation, InvocationActionsResponse, InvocationStatus, RemoteAction};
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use crate::open::Open;
use crate::ran::Asking;
use crate::records::{Error, Records};
use crate::room::Memory;

/// Invocations of a tenant whose events arrive, at most.
const MAX_OPEN: usize = 1_000;

/// One tenant's invocations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Invocations {
    records: Records,
    open: Arc<Mutex<HashMap<String, Arc<Turn<Open>>>>>,
    asking: Asking,
    memory: Memory,
}

impl Invocations {
    /// Invocations in this journal.
    pub fn over(journal: Journal) -> Self {
        Self {
            records: Records::over(journal),
            open: Arc::default(),
            asking: Asking::default(),
            memory: Memory::default(),
        }
    }

    /// An invocation with all details.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn get(&self, id: &str) -> Result<Option<Invocation>, Error> {
        Ok(self.records.get(id).await?.map(|known| self.shown(known)))
    }

    /// The newest invocations without their details, from the one `before` this one.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn list(&self, limit: usize, before: &str) -> Result<Vec<Invocation>, Error> {
        let found = self.records.list(limit, before).await?;
        Ok(found.into_iter().map(|known| self.shown(known)).collect())
    }

    /// What an invocation printed, from a position; and where the next part begins. Empty at the end.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn log(&self, id: &str, from: u64) -> Result<(Vec<u8>, u64), Error> {
        self.records.log(id, from).await
    }

    /// An action that a caller asked for on behalf of an invocation has ended. It is remembered if the invocation tells of itself now, and the
    /// same caller published it.
    pub fn ran(&self, id: &str, caller: &str, action: RemoteAction) {
        self.asking.add(id, caller, action);
    }

    /// The actions that an invocation asked for, from a position on: 0, or the `next` of an earlier answer.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn actions(&self, id: &str, from: u64) -> Result<InvocationActionsResponse, Error> {
        let (actions, next) = self.records.actions(id, from).await?;
        let is_cut = match self.asking.is_full(id) {
            Some(is_full) => is_full,
            None if from == 0 => crate::ran::is_full(&actions),
            // It has ended, so whoever reads on does this once.
            None => crate::ran::is_full(&self.records.actions(id, 0).await?.0),
        };
        Ok(InvocationActionsResponse { actions, is_cut, next })
    }

    /// As it is shown: one that nobody adds to any more does not run.
    fn shown(&self, mut invocation: Invocation) -> Invocation {
        let is_open = || self.open.lock().contains_key(&invocation.id);
        if invocation.status() == InvocationStatus::InvocationRunning && !is_open() {
            invocation.set_status(InvocationStatus::InvocationDisconnected);
        }
        invocation
    }

    /// The invocation with this id, for a stream of its events; begun by this caller if there is none.
    pub(crate) async fn open(&self, id: &str, publisher: &str) -> Result<Arc<Turn<Open>>, Error> {
        {
            let all = self.open.lock();
            if let Some(open) = all.get(id) {
                return Ok(open.clone());
            }
            if all.len() >= MAX_OPEN {
                return Err(Error::Full { most: MAX_OPEN });
            }
        }
        let known = match self.records.get(id).await? {
            Some(known) => known,
            None => {
                self.records.trim().await?;
                let (id, publisher, received) = (id.to_owned(), publisher.to_owned(), Some(kiln_proto::clock::now()));
                let mut begun = Invocation { id, publisher, received, started: received, ..Invocation::default() };
                begun.set_status(InvocationStatus::InvocationRunning);
                begun
            }
        };
        let output = self.records.output(id).await?;
        let (actions, kept) = self.records.actions_of(id, known.last_event == 0).await?;
        self.asking.begin(id, &known.publisher, actions, kept);
        let opened = Arc::new(Turn::new(Open::new(known, self.memory.clone(), output, self.records.clone())));
        Ok(self.open.lock().entry(id.to_owned()).or_insert(opened).clone())
    }

    /// A stream no longer has this invocation.
    pub(crate) fn close(&self, id: &str, open: Arc<Turn<Open>>) {
        let mut all = self.open.lock();
        drop(open);
        if all.get(id).is_some_and(|open| Arc::strong_count(open) == 1) {
            all.remove(id);
            self.asking.end(id);
        }
    }
}
