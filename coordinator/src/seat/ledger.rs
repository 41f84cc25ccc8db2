//! What all coordinators of a farm know of its members, kept in a journal of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_auth::ledger::{self, Ledger};
use kiln_journal::{Engine, Space, Write};
use kiln_replicas::{Register, Shelf, Term};
use tokio::sync::Mutex;

/// The journal's name, which no tenant can have.
const JOURNAL: &str = ".members";
/// A page's name to its text.
const MEMBERS: Space = "members";

/// The farm's ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    register: Arc<dyn Register>,
    shelf: Arc<dyn Shelf>,
    /// The journal of the term in which this coordinator leads, if it does. One page at a time is written.
    journal: Arc<Mutex<Option<Arc<dyn Engine>>>>,
}

impl Pages {
    pub(crate) fn new(register: Arc<dyn Register>, shelf: Arc<dyn Shelf>) -> Self {
        Self { register, shelf, journal: Arc::default() }
    }

    /// This coordinator leads in this term, or no more.
    pub(super) async fn leads(&self, term: Option<&Term>) {
        *self.journal.lock().await = term.map(|term| self.register.journal(JOURNAL, term));
    }
}

impl Pages {
    /// Takes over which workers joined when this coordinator was alone, if the farm knows nothing of that yet.
    ///
    /// # Errors
    /// If the ledger cannot be reached.
    pub(super) async fn take_over(&self, data_dir: &Path) -> Result<(), String> {
        let file = data_dir.join(ledger::JOINED_FILE);
        if !file.exists() || self.read(ledger::JOINED).await?.is_some() {
            return Ok(());
        }
        let text = tokio::fs::read_to_string(&file).await.map_err(|error| format!("`{}`: {error}", file.display()))?;
        self.write(ledger::JOINED, text).await
    }
}

#[tonic::async_trait]
impl Ledger for Pages {
    async fn read(&self, name: &str) -> Result<Option<String>, String> {
        // Reading is free to all, whatever their term.
        let journal = self.register.journal(JOURNAL, &Term { epoch: 0, nonce: String::new() });
        let found = journal.get(MEMBERS, vec![name.to_owned()]).await.map_err(|error| error.to_string())?;
        let text = found.into_iter().next().flatten().map(|text| String::from_utf8(text.to_vec()));
        text.transpose().map_err(|error| format!("the farm's ledger is damaged: {error}"))
    }

    async fn write(&self, name: &str, text: String) -> Result<(), String> {
        let journal = self.journal.lock().await;
        let journal =
            journal.as_ref().ok_or_else(|| "this coordinator does not lead the farm at the moment".to_owned())?;
        let write = Write::Put { space: MEMBERS, key: name.to_owned(), value: Bytes::from(text) };
        journal.commit(vec![Arc::new(vec![write])], true).await.map_err(|error| error.to_string())
    }
}

fn text(found: Option<Bytes>) -> Option<String> {
    found.and_then(|data| String::from_utf8(data.to_vec()).ok())
}

#[tonic::async_trait]
impl kiln_auth::Shelf for Pages {
    async fn keep(&self, name: &str, text: String, life: Duration) -> Result<(), String> {
        self.shelf.keep(name, text.as_bytes(), life).await.map_err(|error| error.to_string())
    }

    async fn renew(&self, name: &str, text: String, life: Duration) -> Result<(), String> {
        self.shelf.renew(name, text.as_bytes(), life).await.map_err(|error| error.to_string())
    }

    async fn kept(&self, name: &str) -> Result<Option<String>, String> {
        self.shelf.kept(name).await.map(text).map_err(|error| error.to_string())
    }

    async fn take(&self, name: &str) -> Result<Option<String>, String> {
        self.shelf.take(name).await.map(text).map_err(|error| error.to_string())
    }
}
