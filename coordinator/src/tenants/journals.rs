//! Where the journals of tenants are.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_journal::{Fsync, Journal, Patient};
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

impl Journals {
    /// The epoch of the term; 0 for the only coordinator of a farm.
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Files(_) => 0,
            Self::Common { term, .. } => term.epoch,
        }
    }

    /// Opens that of a tenant with this directory.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn of(&self, tenant: &str, directory: &Path) -> Result<Journal, kiln_journal::Error> {
        match self {
            Self::Files(fsync) => Journal::open(&directory.join("journal.redb"), *fsync),
            Self::Common { register, term, fsync } => {
                let engine = Patient::over(register.journal(tenant, term), PATIENCE);
                Ok(Journal::over(Arc::new(engine), *fsync))
            }
        }
    }

    /// Tenants that have one, other than the default tenant, whose directories are in this one.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn tenants(&self, directory: &Path) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Files(_) => {
                let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
                Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
            }
            Self::Common { register, .. } => {
                let mut tenants = register.tenants().await?;
                // Neither the default tenant nor what the farm itself keeps.
                tenants.retain(|tenant| !tenant.is_empty() && !tenant.starts_with('.'));
                Ok(tenants)
            }
        }
    }
}
