//! Builds on every push: webhooks of GitHub, GitLab and Gitea become builds, and builds become statuses of commits.
//!
//! A delivery is checked ([`forge`]), recorded ([`deliveries`]) and answered; then its commit is fetched ([`checkout`]), scanned and
//! submitted like any build ([`submit`]), followed to its end and reported ([`job`]).
//!
//! Invariant: nothing of a delivery is looked at before its signature was checked, and what was answered as accepted is built also where
//! the coordinator was started anew in between. What is fetched is a repository that the configuration names.

mod checkout;
mod config;
mod deliveries;
mod forge;
mod import;
mod job;
mod listener;
mod metrics;
mod receive;
mod report;
mod repository;
mod submit;
mod submodules;

pub use metrics::WebhookMetrics;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use config::Hook;
pub use config::{Config, Error};
use deliveries::{Deliveries, Job, Key};
use kiln_builds::Builds;
use kiln_store::Stores;

/// Repositories that are fetched and scanned at once.
const FETCHES: usize = 2;

/// What a delivery needs to become a build. Cheap to clone.
#[derive(Debug, Clone)]
struct Webhooks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hooks: BTreeMap<String, Arc<Hook>>,
    deliveries: Deliveries,
    checkouts: checkout::Checkouts,
    fetching: Semaphore,
    farm: Farm,
    http: reqwest::Client,
    stopping: CancellationToken,
}

/// Where a tenant's builds are made.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its blobs and results.
    pub stores: Stores,
    /// Its builds.
    pub builds: Builds,
}

/// The tenants of a farm.
#[tonic::async_trait]
pub trait Tenants: std::fmt::Debug + Send + Sync {
    /// One of them; that without a name is the default one.
    ///
    /// # Errors
    /// Where it cannot be opened.
    async fn tenant(&self, name: &str) -> Result<Tenant, tonic::Status>;
}

/// The farm that builds what is pushed.
#[derive(Debug, Clone)]
pub struct Farm {
    /// What is fetched is kept below it.
    pub data_dir: PathBuf,
    /// What is delivered is recorded here.
    pub journal: kiln_journal::Journal,
    /// Those whose builds they are.
    pub tenants: Arc<dyn Tenants>,
    /// What is counted.
    pub metrics: Option<WebhookMetrics>,
}

/// Listens for deliveries, and takes up those that an earlier run accepted and did not finish.
///
/// # Errors
/// Where the address, the certificate or the data directory cannot be used.
pub async fn serve(
    config: Config,
    farm: Farm,
    stopping: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let directory = farm.data_dir.join("webhooks");
    std::fs::create_dir_all(&directory)?;
    let tls = config.tls().map(kiln_auth::tls::open).transpose()?;
    let listener =
        TcpListener::bind(config.listen).await.map_err(|source| Error::Bind { at: config.listen, source })?;
    let address = listener.local_addr()?;
    let is_behind_proxy = config.is_behind_proxy();
    let hooks: BTreeMap<_, _> = config.hooks.into_iter().map(|(name, hook)| (name, Arc::new(hook))).collect();
    let webhooks = Webhooks {
        shared: Arc::new(Shared {
            deliveries: Deliveries::open(farm.journal.clone(), &directory.join("journal.redb")).await?,
            checkouts: checkout::Checkouts::open(directory.join("repositories"))?,
            fetching: Semaphore::new(FETCHES),
            http: kiln_auth::outgoing::client(report::REPORT_TIMEOUT)?,
            stopping: stopping.clone(),
            farm,
            hooks,
        }),
    };
    for (key, job) in webhooks.shared.deliveries.pending().await? {
        webhooks.begin(key, job);
    }
    tracing::info!(%address, tls = tls.is_some(), hooks = webhooks.shared.hooks.len(), "accepting webhooks");
    let router = receive::router(webhooks, is_behind_proxy);
    Ok(listener::serve(listener, tls, router, is_behind_proxy, stopping))
}

impl Webhooks {
    /// Carries a job out, beside whatever else happens.
    fn begin(&self, key: Key, job: Job) {
        let webhooks = self.clone();
        tokio::spawn(async move {
            let Some(hook) = webhooks.shared.hooks.get(&job.hook).cloned() else {
                tracing::warn!(
                    hook = job.hook,
                    commit = job.push.commit,
                    "a push is not built: its webhook is no longer configured"
                );
                webhooks.forget(key).await;
                return;
            };
            let stopping = webhooks.shared.stopping.clone();
            tokio::select! {
                () = job::Running::new(&webhooks, hook, key, job).run() => webhooks.forget(key).await,
                // The next run of the coordinator goes on with it.
                () = stopping.cancelled() => {}
            }
        });
    }

    async fn forget(&self, key: Key) {
        if let Err(error) = self.shared.deliveries.finish(key).await {
            tracing::error!(%error, "cannot note that a push was dealt with; it may be reported once more after a restart");
        }
    }
}
