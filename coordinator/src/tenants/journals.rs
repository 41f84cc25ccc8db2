//! Where the journals of tenants are.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_journal::{Engine, Fsync, Journal, Patient, RedbEngine, Space, Write};
use kiln_replicas::{Register, Term};

/// How long to wait for what the coordinators have in common: longer than a lease lasts that cannot be renewed meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the journals of tenants are.
#[derive(Debug, Clone)]
pub enum Journals {
    /// In the tenants' directories.
    Files(Fsync),
    /// In what the coordinators of the farm have in common; written in this term only.
    Common {
        /// What that is.
        register: Arc<dyn Register>,
        /// The term.
        term: Term,
        /// How often they are synced.
        fsync: Fsync,
    },
}

/// A tenant's journal in its directory.
const FILE: &str = "journal.redb";
/// Where it is said that a tenant's journal was begun, or taken over from a file.
const BEGUN: Space = "begun";

/// Copies the journal that this coordinator had alone, if the farm of several is new: what it knew does not get lost. The file stays.
async fn take_over(engine: &Patient, tenant: &str, file: &Path) -> anyhow::Result<()> {
    // Directories have the same names on many machines.
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut from = format!("{host}:{}", file.display());
    if let Some(begun) = engine.get(BEGUN, vec![BEGUN.to_owned()]).await?.into_iter().next().flatten() {
        if file.exists() && begun != from.as_bytes() {
            tracing::warn!(
                tenant,
                file = from,
                "this coordinator has builds of its own, which the farm does not know: the farm had some before. To keep these, begin a farm \
                 with this coordinator alone, under another `--redis-prefix`, and restart the workers, which know a later leader"
            );
        }
        return Ok(());
    }
    if file.exists() {
        let path = file.to_owned();
        let old = tokio::task::spawn_blocking(move || RedbEngine::open(&path, true)).await??;
        let copied = loop {
            match old.copy_to(engine).await {
                // From the beginning: what was copied first may be gone.
                Err(kiln_journal::Error::Away { lost: true, .. }) => {}
                copied => break copied?,
            }
        };
        tracing::info!(tenant, file = from, copied, "took over the journal that this coordinator had alone");
    } else {
        from.clear();
    }
    let begun = Write::Put { space: BEGUN, key: BEGUN.to_owned(), value: from.into() };
    engine.commit(vec![Arc::new(vec![begun])], true).await?;
    Ok(())
}

impl Journals {
    /// The epoch of the term; 0 for the only coordinator of a farm.
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Files(_) => 0,
            Self::Common { term, .. } => term.epoch,
        }
    }

    /// Opens that of a tenant with this directory. If there are several coordinators, the first one's file is taken over.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn of(&self, tenant: &str, directory: &Path) -> anyhow::Result<Journal> {
        match self {
            Self::Files(fsync) => Ok(Journal::open(&directory.join(FILE), *fsync)?),
            Self::Common { register, term, fsync } => {
                let engine = Patient::over(register.journal(tenant, term), PATIENCE);
                take_over(&engine, tenant, &directory.join(FILE)).await?;
                Ok(Journal::over(Arc::new(engine), *fsync))
            }
        }
    }

    /// Tenants that have one, other than the default tenant, whose directories are in this one.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn tenants(&self, directory: &Path) -> anyhow::Result<Vec<String>> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut tenants: BTreeSet<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        if let Self::Common { register, .. } = self {
            tenants.extend(register.tenants().await?);
            // Neither the default tenant nor what the farm itself keeps.
            tenants.retain(|tenant| !tenant.is_empty() && !tenant.starts_with('.'));
        }
        Ok(tenants.into_iter().collect())
    }
}
