//! One tenant's stack: stores, layers, builds, and the services over them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_proto::asset::fetch_server::FetchServer;
use kiln_proto::asset::push_server::PushServer;
use kiln_proto::bes::publish_build_event_server::PublishBuildEventServer;
use kiln_proto::bytestream::byte_stream_server::ByteStreamServer;
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::longrunning::operations_server::OperationsServer;
use kiln_proto::reapi::action_cache_server::ActionCacheServer;
use kiln_proto::reapi::capabilities_server::CapabilitiesServer;
use kiln_proto::reapi::execution_server::ExecutionServer;
use kiln_proto::v1::artifacts_server::ArtifactsServer;
use kiln_proto::v1::builds_server::BuildsServer;
use kiln_proto::v1::cache_mounts_server::CacheMountsServer;
use kiln_proto::v1::cache_server::CacheServer;
use kiln_proto::v1::calls_server::CallsServer;
use kiln_proto::v1::farm_server::FarmServer;
use kiln_proto::v1::invocations_server::InvocationsServer;
use kiln_proto::v1::shells_server::ShellsServer;
use kiln_proto::v1::ssh_agents_server::SshAgentsServer;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::service::Routes;

use super::Limits as TenantLimits;
use crate::Config;
use crate::services::{
    action_cache, agents, builds, bytestream, cache, calls, capabilities, cas, execution, farm, mounts, shells,
};
use kiln_assets::{Assets, Downloads};
use kiln_auth::{Known, check_name};
use kiln_bazel::{Invocations, Publish, Show};
use kiln_builds::{BuildMetrics, Builds, ImageActions, Settings};
use kiln_caches::{Caches, Limits};
use kiln_execution::ExecutionHandle;
use kiln_journal::{Fsync, Journal};
use kiln_layers::{self, LayerStore, Layers, OwnLayers, SharedLayers};
use kiln_notify::Notifier;
use kiln_planner::plan::Toolchains;
use kiln_state::Current;
use kiln_store::Stores;
use kiln_webhooks::Tenant;

/// Maximum number of cache records: one for each step, target and shard of a project.
const MAX_LAYER_RECORDS: usize = 20_000;
/// Maximum number of open tenants: each needs open files and memory.
const MAX_TENANTS: usize = 1_000;

/// What all tenants share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The coordinator's configuration.
    pub config: Config,
    /// The default tenant's stores; others' are below them.
    pub kept: kiln_store::Config,
    /// Workers and the queue, with the default tenant's stores.
    pub execution: ExecutionHandle,
    /// Metrics of builds.
    pub builds: Option<BuildMetrics>,
    /// Tokens and revocations.
    pub known: watch::Receiver<Arc<Known>>,
    /// Cancelled when the coordinator shuts down.
    pub stopping: CancellationToken,
    /// The tenants' quotas.
    pub quotas: TenantLimits,
    /// Images for languages.
    pub toolchains: Current<Toolchains>,
    /// Links that log a browser in to the web pages.
    pub links: kiln_web::Links,
    /// How files are fetched on behalf of clients.
    pub downloads: Downloads,
    /// Tells webhooks of the ends of builds.
    pub notifier: Notifier,
}

/// One tenant's services and data.
#[derive(Debug)]
pub struct Stack {
    /// The services.
    pub routes: Routes,
    /// The data below the services.
    pub tenant: Tenant,
    layers: Layers,
    journal: Journal,
    _collecting: AbortOnDropHandle<()>,
}

impl Stack {
    /// Opens a tenant's data with these stores; its unfinished builds continue.
    ///
    /// # Errors
    /// If its directory cannot be used.
    pub async fn open(
        tenant: &str,
        shared: &Shared,
        (directory, journal): (PathBuf, Journal),
        kept: &kiln_store::Config,
        stores: Stores,
        execution: ExecutionHandle,
    ) -> anyhow::Result<Self> {
        let collecting =
            AbortOnDropHandle::new(tokio::spawn(stores.collector.clone().run(shared.config.collect_every)));
        let records = OwnLayers::open(journal.clone(), &directory.join("layers.redb"), MAX_LAYER_RECORDS).await?;
        let limits = Limits { one_bytes: shared.config.cache_mount_bytes, all_bytes: shared.config.cache_mounts_bytes };
        let mounts = Caches::new(journal.clone(), stores.clone(), limits);
        let layers = Layers::spawn(shared_layers(records, kept, &stores).await?, stores.clone());
        let builds = Builds::open(
            journal.clone(),
            &directory.join("builds"),
            stores.clone(),
            execution.clone(),
            layers.clone(),
            Settings {
                tenant: tenant.to_owned(),
                allow_emulation: shared.config.allow_emulation,
                registries: shared.config.registries(),
                toolchains: shared.toolchains.clone(),
                credentials: execution.credentials().clone(),
                metrics: shared.builds.clone(),
                unfinished: shared.config.unfinished,
                known: Some(shared.known.clone()),
                keep: shared.config.keep_builds,
                trim_every: shared.config.collect_every,
                shell_idle: shared.config.shell_idle,
                notifier: Some(shared.notifier.clone()),
            },
        )
        .await?;
        let images = ImageActions::new(
            stores.clone(),
            execution.clone(),
            shared.config.registries(),
            execution.credentials().clone(),
        );
        let (abandoned_after, stopping) = (shared.config.abandoned_after, shared.stopping.clone());
        let invocations = Invocations::over(journal.clone());
        let asked = invocations.clone();
        let operations = execution::Execution::new(execution.clone(), images, asked, abandoned_after, stopping);
        let tenant = Tenant { stores: stores.clone(), builds: builds.clone() };
        let agents = agents::SshAgents::new(builds.clone());
        let shells = shells::Shells::new(builds.clone());
        let served = builds::Builds::new(builds, &shared.config.web);
        let assets = Assets::new(stores.clone(), journal.clone(), shared.downloads.clone());
        macro_rules! sized {
            ($service:expr) => {
                $service.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
            };
        }
        let routes = Routes::new(sized!(CapabilitiesServer::new(capabilities::Capabilities)))
            .add_service(cas::ContentAddressableStorage::server(stores.clone()))
            .add_service(sized!(ByteStreamServer::new(bytestream::ByteStream::new(stores.clone(), execution.logs()))))
            .add_service(sized!(FetchServer::new(assets.clone())))
            .add_service(sized!(PushServer::new(assets)))
            .add_service(sized!(PublishBuildEventServer::new(Publish::new(invocations.clone()))))
            .add_service(sized!(InvocationsServer::new(Show::new(invocations.clone()))))
            .add_service(sized!(CallsServer::new(calls::Calls::new(stores.clone(), execution.clone()))))
            .add_service(sized!(ActionCacheServer::new(action_cache::ActionCache::new(stores).telling(invocations))))
            .add_service(sized!(ExecutionServer::new(operations.clone())))
            .add_service(sized!(OperationsServer::new(operations)))
            .add_service(sized!(FarmServer::new(farm::Farm::new(
                execution,
                shared.toolchains.clone(),
                shared.config.tool_caches.clone(),
                (shared.config.web.clone(), shared.links.clone()),
            ))))
            .add_service(sized!(CacheServer::new(cache::Cache::new(layers.clone(), mounts.clone()))))
            .add_service(sized!(CacheMountsServer::new(mounts::CacheMounts::new(mounts))))
            .add_service(sized!(SshAgentsServer::new(agents)))
            .add_service(sized!(ShellsServer::new(shells)))
            .add_service(sized!(BuildsServer::new(served.clone())))
            .add_service(sized!(ArtifactsServer::new(served)));
        Ok(Self { routes, tenant, layers, journal, _collecting: collecting })
    }

    /// Waits until all that is known is on the disk.
    pub async fn settle(&self) {
        self.layers.settle().await;
        if let Err(error) = self.journal.settle().await {
            tracing::error!(%error, "the last of the journal is not on the disk");
        }
    }
}

/// The journal in a tenant's directory.
///
/// # Errors
/// If it cannot be opened.
pub fn journal(directory: &Path, fsync: Fsync) -> Result<Journal, kiln_journal::Error> {
    Journal::open(&directory.join("journal.redb"), fsync)
}

/// Cache records shared by the coordinators that use the same Redis, if there is one.
async fn shared_layers(
    own: OwnLayers,
    config: &kiln_store::Config,
    stores: &Stores,
) -> Result<Arc<dyn LayerStore>, kiln_layers::Error> {
    let (Some(link), Some(redis)) = (&stores.redis, &config.redis) else { return Ok(Arc::new(own)) };
    let keys = kiln_store::redis::Keys::new(&redis.prefix, config.life, redis.key.clone());
    let parts = kiln_store::redis::Parts::new(link.clone(), keys, MAX_LAYER_RECORDS);
    Ok(SharedLayers::open(own, parts, stores.blobs.clone()).await?)
}

/// All tenants except the default one, each opened when it is first needed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tenants {
    shared: Arc<Shared>,
    open: Arc<Mutex<HashMap<String, Arc<OnceCell<Stack>>>>>,
}

impl Tenants {
    /// Starts without open tenants.
    pub fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), open: Arc::default() }
    }

    /// Workers and the queue.
    pub(super) fn execution(&self) -> &ExecutionHandle {
        &self.shared.execution
    }

    fn directory(&self) -> PathBuf {
        self.shared.config.data_dir.join("tenants")
    }

    /// Opens the tenants that exist on disk, so that their unfinished builds continue and their disk usage counts.
    pub async fn resume(&self) {
        let names = std::fs::read_dir(self.directory()).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let open = |name: String| {
            let tenants = self.clone();
            tokio::spawn(async move {
                if let Err(status) = tenants.routes(&name).await {
                    tracing::error!(tenant = name, reason = status.message(), "cannot open a tenant");
                }
            })
        };
        let opening: Vec<_> = names.map(open).collect();
        futures::future::join_all(opening).await;
    }

    /// The services of a tenant.
    ///
    /// # Errors
    /// If there are too many tenants, or the tenant's directory cannot be used.
    pub async fn routes(&self, tenant: &str) -> Result<Routes, Status> {
        self.with(tenant, |stack| stack.routes.clone()).await
    }

    /// A tenant's stores and builds.
    ///
    /// # Errors
    /// As [`routes`](Self::routes).
    pub async fn tenant(&self, tenant: &str) -> Result<Tenant, Status> {
        self.with(tenant, |stack| stack.tenant.clone()).await
    }

    async fn with<T>(&self, tenant: &str, take: impl FnOnce(&Stack) -> T) -> Result<T, Status> {
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
        let stack = opened.map_err(|error| {
            tracing::error!(tenant, error = format!("{error:#}"), "cannot open a tenant's stores");
            Status::unavailable(format!(
                "cannot open the stores of tenant `{tenant}`; see the coordinator's log for the reason"
            ))
        })?;
        Ok(take(stack))
    }

    async fn open_one(&self, tenant: &str) -> anyhow::Result<Stack> {
        let directory = self.directory().join(tenant);
        kiln_state::syncs::make_directory(&directory, &kiln_state::syncs::Kernel)?;
        let quota = self.shared.quotas.of(tenant);
        let mut kept = self.shared.kept.clone();
        kept.data_dir.clone_from(&directory);
        quota.bound(&mut kept);
        if let Some(redis) = &mut kept.redis {
            // A name contains no `@@`, so no two tenants' keys have the same prefix.
            redis.prefix = format!("{}@@{tenant}", redis.prefix);
        }
        kept.s3 = kept.s3.map(|address| address.below(&format!("tenants/{tenant}")));
        let stores = Stores::open(&kept).await?;
        let execution =
            self.shared.execution.of_tenant(tenant, stores.clone(), Some(self.shared.quotas.actions(tenant)));
        tracing::info!(tenant, "a tenant's stores are open");
        let journal = journal(&directory, self.shared.config.fsync)?;
        Stack::open(tenant, &self.shared, (directory, journal), &kept, stores, execution).await
    }

    /// Waits until all cache records are written.
    pub async fn settle(&self) {
        let open: Vec<_> = self.open.lock().values().cloned().collect();
        for cell in open {
            if let Some(stack) = cell.get() {
                stack.settle().await;
            }
        }
    }
}
