//! The stores of each tenant, and what serves them to everybody. They outlive what a coordinator does while it leads its farm.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kiln_auth::check_name;
use kiln_store::Stores;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::service::Routes;

use super::Limits;
use crate::services::{self, Keeps, Noted};

/// Maximum number of open tenants: each needs open files and memory.
const MAX_TENANTS: usize = 1_000;

/// One tenant's stores.
#[derive(Debug)]
pub struct Opened {
    /// The stores.
    pub stores: Stores,
    /// Where they are, and their limits.
    pub kept: kiln_store::Config,
    /// The services over these stores alone, as every coordinator of a farm has them.
    pub routes: Routes,
    _collecting: AbortOnDropHandle<()>,
}

impl Opened {
    async fn open(kept: kiln_store::Config, collect_every: Duration, keeps: Keeps) -> Result<Self, kiln_store::Error> {
        let stores = Stores::open(&kept).await?;
        let collecting = tokio::spawn(stores.collector.clone().run(collect_every));
        let routes = services::over_stores(&stores, keeps);
        Ok(Self { stores, kept, routes, _collecting: AbortOnDropHandle::new(collecting) })
    }

    /// The tenant's directory.
    pub fn directory(&self) -> &Path {
        &self.kept.data_dir
    }
}

/// All tenants' stores, each opened when it is first needed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AllStores {
    own: Arc<Opened>,
    /// The default tenant's configuration; others' stores are below it.
    kept: Arc<kiln_store::Config>,
    quotas: Limits,
    collect_every: Duration,
    /// Takes what invocations ask for to the coordinator that leads.
    notes: mpsc::Sender<Noted>,
    open: Arc<Mutex<HashMap<String, Cell>>>,
}

type Cell = Arc<OnceCell<Arc<Opened>>>;

impl AllStores {
    /// Opens the default tenant's stores; `collect_every` is how often unused data is removed, and `notes` takes what
    /// invocations ask for to the coordinator that leads.
    ///
    /// # Errors
    /// If they cannot be used.
    pub async fn open(
        kept: kiln_store::Config,
        quotas: Limits,
        collect_every: Duration,
        notes: mpsc::Sender<Noted>,
    ) -> Result<Self, kiln_store::Error> {
        let mut own = kept.clone();
        quotas.of("").bound(&mut own);
        let own = Arc::new(Opened::open(own, collect_every, Keeps::Leader(String::new(), notes.clone())).await?);
        Ok(Self { own, kept: Arc::new(kept), quotas, collect_every, notes, open: Arc::default() })
    }

    /// The default tenant's.
    pub fn own(&self) -> &Arc<Opened> {
        &self.own
    }

    /// The directory with the other tenants' directories.
    pub fn directory(&self) -> PathBuf {
        self.kept.data_dir.join("tenants")
    }

    /// A tenant's; an empty name means the default tenant.
    ///
    /// # Errors
    /// If there are too many tenants, or the tenant's directory cannot be used.
    pub fn of<'a>(&'a self, tenant: &'a str) -> BoxFuture<'a, Result<Arc<Opened>, Status>> {
        // Its type ends here: whoever calls it need not know all that a store consists of.
        Box::pin(async move {
            if tenant.is_empty() {
                return Ok(self.own.clone());
            }
            // Checked before it takes a slot.
            check_name("tenant", tenant).map_err(Status::invalid_argument)?;
            let cell = {
                let mut open = self.open.lock();
                if open.len() >= MAX_TENANTS && !open.contains_key(tenant) {
                    return Err(Status::resource_exhausted(format!(
                        "this coordinator has {MAX_TENANTS} tenants, the most that it allows"
                    )));
                }
                open.entry(tenant.to_owned()).or_default().clone()
            };
            let opened = cell.get_or_try_init(|| self.open_one(tenant)).await;
            opened.cloned().map_err(|error| super::cannot_open(tenant, &error))
        })
    }

    async fn open_one(&self, tenant: &str) -> anyhow::Result<Arc<Opened>> {
        let directory = self.directory().join(tenant);
        kiln_state::syncs::make_directory(&directory, &kiln_state::syncs::Kernel)?;
        let mut kept = (*self.kept).clone();
        kept.data_dir = directory;
        self.quotas.of(tenant).bound(&mut kept);
        if let Some(redis) = &mut kept.redis {
            // A name contains no `@@`, so no two tenants' keys have the same prefix.
            redis.prefix = format!("{}@@{tenant}", redis.prefix);
        }
        kept.s3 = kept.s3.map(|address| address.below(&format!("tenants/{tenant}")));
        let opened =
            Opened::open(kept, self.collect_every, Keeps::Leader(tenant.to_owned(), self.notes.clone())).await?;
        tracing::info!(tenant, "a tenant's stores are open");
        Ok(Arc::new(opened))
    }
}

#[tonic::async_trait]
impl kiln_toolcaches::Tenants for AllStores {
    async fn stores(&self, name: &str) -> Result<Stores, Status> {
        Ok(self.of(name).await?.stores.clone())
    }
}
