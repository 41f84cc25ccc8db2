//! Builds every push: webhooks of GitHub, GitLab and Gitea become builds, and builds become commit statuses.
//!
//! A delivery is verified by the coordinator that receives it ([`forge`], [`receive`]). The one that leads the farm records it
//! ([`take`], [`deliveries`]), and it is answered; then its commit is fetched ([`checkout`]), scanned and submitted like any build
//! ([`submit`]), followed to its end and reported ([`job`]).
//!
//! Invariant: nothing in a delivery is used before its signature has been verified, and an accepted push is built even
//! if the coordinator restarts in between. Only repositories that the configuration names are fetched.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

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
mod take;

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
use kiln_proto::v1;
use kiln_state::Current;
use kiln_store::Stores;

/// Repositories that are fetched and scanned at once.
const FETCHES: usize = 2;

/// Turns pushes into builds, at the coordinator that leads its farm. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhooks {
    shared: Arc<Shared>,
}

/// The webhooks by name.
type Hooks = BTreeMap<String, Arc<Hook>>;

/// What the file of webhooks says, as long as the coordinator runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Served {
    hooks: Current<Hooks>,
    listens: config::Listens,
}

impl Served {
    /// What this file says.
    pub fn new(config: Config) -> Self {
        Self { listens: config.listens(), hooks: Current::new(config.hooks()) }
    }

    /// Takes over another file, and answers whether its listener is still as it says: address and certificate stay until a restart.
    pub fn replace(&self, config: Config) -> bool {
        let is_same = config.listens() == self.listens;
        self.hooks.set(config.hooks());
        is_same
    }
}

#[derive(Debug)]
struct Shared {
    hooks: Current<Hooks>,
    deliveries: Deliveries,
    checkouts: checkout::Checkouts,
    fetching: Semaphore,
    farm: Farm,
    http: reqwest::Client,
    stopping: CancellationToken,
}

/// Where a tenant's builds run.
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
    /// A tenant by its name; an empty name means the default tenant.
    ///
    /// # Errors
    /// If it cannot be opened.
    async fn tenant(&self, name: &str) -> Result<Tenant, tonic::Status>;
}

/// The farm that builds pushes.
#[derive(Debug, Clone)]
pub struct Farm {
    /// Fetched repositories are kept in this directory.
    pub data_dir: PathBuf,
    /// Deliveries are recorded here.
    pub journal: kiln_journal::Journal,
    /// The tenants that own the builds.
    pub tenants: Arc<dyn Tenants>,
    /// Metrics, if they are collected.
    pub metrics: Option<WebhookMetrics>,
    /// Where the farm's pages are: a commit's status links to its build's, unless its webhook has a `link`.
    pub pages: Option<url::Url>,
}

/// The coordinator that leads the farm, wherever it is.
#[tonic::async_trait]
pub trait Leader: std::fmt::Debug + Send + Sync {
    /// Has it take a push.
    ///
    /// # Errors
    /// `UNAVAILABLE` while none leads, `FAILED_PRECONDITION` if it builds no such pushes.
    async fn take(&self, push: v1::TakeDeliveryRequest) -> Result<v1::TakeDeliveryResponse, tonic::Status>;
}

/// Listens for deliveries, verifies them, and hands them to the coordinator that leads.
///
/// # Errors
/// If the address or the certificate cannot be used.
pub async fn serve(
    served: &Served,
    leader: Arc<dyn Leader>,
    metrics: Option<WebhookMetrics>,
    stopping: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let config::Listens { address: at, tls } = served.listens.clone();
    let is_behind_proxy = tls.is_none();
    let tls = tls.map(kiln_auth::tls::open).transpose()?;
    let listener = TcpListener::bind(at).await.map_err(|source| Error::Bind { at, source })?;
    let address = listener.local_addr()?;
    tracing::info!(%address, tls = tls.is_some(), hooks = served.hooks.get().len(), "accepting webhooks");
    let router = receive::router(served.hooks.clone(), leader, metrics, is_behind_proxy);
    Ok(listener::serve(listener, tls, router, is_behind_proxy, stopping))
}

impl Webhooks {
    /// Builds pushes, and resumes those that an earlier run took and did not finish.
    ///
    /// # Errors
    /// If the journal or the data directory cannot be used.
    pub async fn open(served: &Served, farm: Farm, stopping: CancellationToken) -> anyhow::Result<Self> {
        let directory = farm.data_dir.join("webhooks");
        std::fs::create_dir_all(&directory)?;
        let webhooks = Self {
            shared: Arc::new(Shared {
                deliveries: Deliveries::open(farm.journal.clone(), &directory.join("journal.redb")).await?,
                checkouts: checkout::Checkouts::open(directory.join("repositories"))?,
                fetching: Semaphore::new(FETCHES),
                http: kiln_auth::outgoing::client(report::REPORT_TIMEOUT)?,
                stopping,
                farm,
                hooks: served.hooks.clone(),
            }),
        };
        for (key, job) in webhooks.shared.deliveries.pending().await? {
            webhooks.begin(key, job);
        }
        Ok(webhooks)
    }

    /// Runs a job in the background.
    fn begin(&self, key: Key, job: Job) {
        let webhooks = self.clone();
        tokio::spawn(async move {
            let Some(hook) = webhooks.shared.hooks.get().get(&job.hook).cloned() else {
                tracing::warn!(
                    hook = job.hook,
                    commit = job.push.commit,
                    "push not built: its webhook is no longer configured"
                );
                webhooks.forget(key).await;
                return;
            };
            let stopping = webhooks.shared.stopping.clone();
            tokio::select! {
                () = job::Running::new(&webhooks, hook, key, job).run() => webhooks.forget(key).await,
                // The next run of the coordinator resumes it.
                () = stopping.cancelled() => {}
            }
        });
    }

    async fn forget(&self, key: Key) {
        if let Err(error) = self.shared.deliveries.finish(key).await {
            tracing::error!(%error, "cannot record that a push is finished; it may be reported again after a restart");
        }
    }
}
