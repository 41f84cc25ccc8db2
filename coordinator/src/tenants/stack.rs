//! One tenant's stack over its stores: layers, builds, and the services.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
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
use kiln_proto::v1::possession_server::PossessionServer;
use kiln_proto::v1::shells_server::ShellsServer;
use kiln_proto::v1::ssh_agents_server::SshAgentsServer;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;

use super::journals::Journals;
use super::stores::{AllStores, Opened};
use super::{Limits as TenantLimits, cannot_open};
use crate::Config;
use crate::services::{
    Keeps, action_cache, agents, builds, bytestream, cache, calls, capabilities, cas, execution, farm, mounts,
    possession, shells,
};
use kiln_assets::{Assets, Downloads};
use kiln_auth::Known;
use kiln_bazel::{Invocations, Publish, Show};
use kiln_builds::{BuildMetrics, Builds, Settings};
use kiln_caches::{Caches, Limits};
use kiln_execution::ExecutionHandle;
use kiln_image_actions::ImageActions;
use kiln_journal::Journal;
use kiln_layers::{self, LayerStore, Layers, OwnLayers, SharedLayers};
use kiln_notify::Notifier;
use kiln_planner::plan::Toolchains;
use kiln_signing::Signer;
use kiln_state::Current;
use kiln_store::Stores;
use kiln_webhooks::Tenant;

/// Maximum number of cache records: one for each step, target and shard of a project.
const MAX_LAYER_RECORDS: usize = 20_000;
/// What all tenants share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The coordinator's configuration.
    pub config: Config,
    /// The tenants' stores.
    pub stores: AllStores,
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
    /// Signs what is stated about artifacts.
    pub signer: Option<Signer>,
    /// Where the journals are.
    pub journals: Journals,
}

/// One tenant's services and data.
#[derive(Debug)]
pub struct Stack {
    /// The services.
    pub routes: Routes,
    /// The data below the services.
    pub tenant: Tenant,
    /// Its cache mounts.
    pub(super) mounts: Caches,
    layers: Layers,
    journal: Journal,
}

impl Stack {
    /// Opens a tenant's data over its stores; its unfinished builds continue.
    ///
    /// # Errors
    /// If its directory cannot be used.
    pub async fn open(
        tenant: &str,
        shared: &Shared,
        journal: Journal,
        opened: &Opened,
        execution: ExecutionHandle,
    ) -> anyhow::Result<Self> {
        let (directory, kept, stores) = (opened.directory(), &opened.kept, opened.stores.clone());
        let records = OwnLayers::open(journal.clone(), &directory.join("layers.redb"), MAX_LAYER_RECORDS).await?;
        let limits = Limits { one_bytes: shared.config.cache_mount_bytes, all_bytes: shared.config.cache_mounts_bytes };
        let mounts = Caches::new(journal.clone(), stores.clone(), limits);
        let layers = Layers::spawn(shared_layers(records, kept, &stores).await?, stores.clone());
        let settings = Settings {
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
            verify_sample: shared.config.verify_sample,
            notifier: Some(shared.notifier.clone()),
            signer: shared.signer.clone(),
            farm_url: shared.config.signing.farm_url.clone(),
        };
        let farm_name = settings.farm();
        let old = directory.join("builds");
        let builds =
            Builds::open(journal.clone(), &old, stores.clone(), execution.clone(), layers.clone(), settings).await?;
        let images = ImageActions::new(
            stores.clone(),
            execution.clone(),
            shared.config.registries(),
            execution.credentials().clone(),
        );
        let (abandoned_after, stopping) = (shared.config.abandoned_after, shared.stopping.clone());
        let invocations = Invocations::over(journal.clone());
        let keeps = Keeps::Own(invocations.clone());
        let operations = execution::Execution::new(execution.clone(), images, keeps.clone(), abandoned_after, stopping);
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
            .add_service(sized!(ActionCacheServer::new(action_cache::ActionCache::new(stores).telling(keeps))))
            .add_service(sized!(ExecutionServer::new(operations.clone())))
            .add_service(sized!(OperationsServer::new(operations)))
            .add_service(sized!(FarmServer::new(farm::Farm::new(
                execution,
                shared.toolchains.clone(),
                shared.config.tool_caches.clone(),
                (shared.config.web.clone(), shared.links.clone()),
                (shared.signer.clone(), farm_name),
            ))))
            .add_service(sized!(CacheServer::new(cache::Cache::new(layers.clone(), mounts.clone()))))
            .add_service(sized!(CacheMountsServer::new(mounts::CacheMounts::new(mounts.clone()))))
            .add_service(sized!(PossessionServer::new(possession::Possession)))
            .add_service(sized!(SshAgentsServer::new(agents)))
            .add_service(sized!(ShellsServer::new(shells)))
            .add_service(sized!(BuildsServer::new(served.clone())))
            .add_service(sized!(ArtifactsServer::new(served)));
        Ok(Self { routes, tenant, mounts, layers, journal })
    }

    /// Waits until all that is known is on the disk.
    pub async fn settle(&self) {
        self.layers.settle().await;
        if let Err(error) = self.journal.settle().await {
            tracing::error!(%error, "the last of the journal is not on the disk");
        }
    }
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

/// All tenants, each opened when it is first needed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tenants {
    shared: Arc<Shared>,
    own: Arc<Stack>,
    open: Arc<Mutex<HashMap<String, Cell>>>,
}

type Cell = Arc<OnceCell<Arc<Stack>>>;

impl Tenants {
    /// Opens the default tenant with this journal.
    ///
    /// # Errors
    /// If its directory cannot be used.
    pub async fn open(shared: Shared, journal: Journal) -> anyhow::Result<Self> {
        let own = Stack::open("", &shared, journal, shared.stores.own(), shared.execution.clone()).await?;
        Ok(Self { shared: Arc::new(shared), own: Arc::new(own), open: Arc::default() })
    }

    /// Workers and the queue.
    pub(crate) fn execution(&self) -> &ExecutionHandle {
        &self.shared.execution
    }

    /// Opens the tenants that exist, so that their unfinished builds continue and their disk usage counts.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn resume(&self) -> anyhow::Result<()> {
        let names = self.shared.journals.tenants(&self.shared.stores.directory()).await?;
        let open = |name: String| {
            let tenants = self.clone();
            tokio::spawn(async move {
                if let Err(status) = tenants.of(&name).await {
                    tracing::error!(tenant = name, reason = status.message(), "cannot open a tenant");
                }
            })
        };
        let opening: Vec<_> = names.into_iter().map(open).collect();
        futures::future::join_all(opening).await;
        Ok(())
    }

    /// The names of all tenants that exist, the default tenant's included.
    ///
    /// # Errors
    /// `UNAVAILABLE` if they cannot be listed.
    pub(super) async fn names(&self) -> Result<Vec<String>, Status> {
        let names = self.shared.journals.tenants(&self.shared.stores.directory()).await;
        let names = names.map_err(|error| Status::unavailable(format!("cannot list the tenants: {error:#}")))?;
        Ok(std::iter::once(String::new()).chain(names).collect())
    }

    /// A tenant's stack; an empty name means the default tenant.
    ///
    /// # Errors
    /// If there are too many tenants, or the tenant's directory cannot be used.
    pub fn of<'a>(&'a self, tenant: &'a str) -> BoxFuture<'a, Result<Arc<Stack>, Status>> {
        // Its type ends here: whoever calls it need not know all that a tenant consists of.
        Box::pin(async move {
            if tenant.is_empty() {
                return Ok(self.own.clone());
            }
            // First of all: it checks the name, and that there is room for it.
            let opened = self.shared.stores.of(tenant).await?;
            let cell = self.open.lock().entry(tenant.to_owned()).or_default().clone();
            let stack = cell.get_or_try_init(|| self.open_one(tenant, &opened)).await;
            stack.cloned().map_err(|error| cannot_open(tenant, &error))
        })
    }

    async fn open_one(&self, tenant: &str, opened: &Opened) -> anyhow::Result<Arc<Stack>> {
        let quota = Some(self.shared.quotas.actions(tenant));
        let execution = self.shared.execution.of_tenant(tenant, opened.stores.clone(), quota);
        let journal = self.shared.journals.of(tenant, opened.directory()).await?;
        Ok(Arc::new(Stack::open(tenant, &self.shared, journal, opened, execution).await?))
    }

    /// Waits until all that is known is on the disk.
    pub async fn settle(&self) {
        self.own.settle().await;
        let open: Vec<_> = self.open.lock().values().cloned().collect();
        for cell in open {
            if let Some(stack) = cell.get() {
                stack.settle().await;
            }
        }
    }
}

#[tonic::async_trait]
impl kiln_webhooks::Tenants for Tenants {
    async fn tenant(&self, name: &str) -> Result<Tenant, Status> {
        Ok(self.of(name).await?.tenant.clone())
    }
}
