//! Execution: one task owns the scheduler's state and carries out its decisions; everyone else holds a handle.
//!
//! Invariant: the only way to run anything is [`ExecutionHandle::execute`] with an action's digest. Builds use it just
//! as Remote Execution clients do.

mod attached;
mod calls;
mod inputs;
mod leases;
pub mod log;
mod memory;
mod owner;
mod places;
pub mod prepare;
pub mod properties;
pub mod quota;
mod requirements;
mod scopes;
pub mod shells;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::digest::Digest;
use kiln_proto::{reapi, root, rpc, scope, v1};
use kiln_scheduler::{Config, Pool, Requirements, WaiterId};
use kiln_telemetry::trace;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tonic::Status;
use tracing::Instrument;

pub use attached::{Attached, Done, Running, State, Update};
pub use calls::Call;
use leases::LiveLeases;
pub use leases::{Elsewhere, LeaseAccess, Left};
use log::LiveLogs;
pub use memory::Memory;
use owner::Message;
use places::Places;
use prepare::Preparer;
pub use quota::Quota;
pub use wait::{Holder, Wait};

use kiln_auth::credentials::Credentials;
use kiln_auth::{FarmKey, Identity};
use kiln_state::Current;
use kiln_state::farm_key::Purpose;
use kiln_store::Stores;
use log::TenantLogs;
use scopes::Scopes;

/// The SSH agents of whoever asks for an action. They stay where they are: what an action asks of one is passed on.
#[async_trait]
pub trait Agents: Send + Sync + std::fmt::Debug {
    /// Passes a request of the agent protocol on, without its length; the answer of an agent that cannot be reached is a failure.
    async fn ask(&self, agent: &str, request: Bytes) -> Bytes;
}

/// A request to run an action.
#[derive(Debug, Clone)]
pub struct Request {
    /// REAPI instance name.
    pub instance: String,
    /// The action's digest.
    pub action_digest: Digest,
    /// Run it even if its result is cached.
    pub skip_cache_lookup: bool,
    /// Lower values are more urgent.
    pub priority: i32,
    /// The share of the farm that it is charged to; a tenant's handle charges the tenant's.
    pub share: String,
    /// The build or invocation that it belongs to.
    pub build: String,
    /// Weight of the longest path of its build that depends on it.
    pub path_weight: u64,
    /// The values of the secrets that the action names.
    pub secrets: Vec<v1::Secret>,
    /// The SSH agents that the action mounts.
    pub agents: Option<Arc<dyn Agents>>,
    /// How long it waits while no worker could run it; `None` for the farm's own limit.
    pub queue_timeout: Option<Duration>,
    /// A shell to run in the action's place. Its run is shared with nobody, leaves no result, and is not repeated elsewhere.
    pub shell: Option<shells::Wanted>,
    /// The action's messages, where the caller has them in memory: they are not read from the store.
    pub known: Option<Arc<Known>>,
}

/// Messages of an action that are stored, as their maker still has them.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The action.
    pub action: reapi::Action,
    /// Its command.
    pub command: reapi::Command,
    /// For an action in a root of its own: the blob with the times of the root's nodes, which is no part of the action.
    pub times: Option<Digest>,
    /// Variables beside those of its command, which are no part of the action.
    pub variables: BTreeMap<String, String>,
    /// The caches of its cache mounts, which are no part of the action either.
    pub caches: Vec<v1::CacheMount>,
    /// For an action in a root of its own: the hosts that it can resolve, whose addresses are no part of the action.
    pub hosts: Vec<kiln_proto::v1::Host>,
    /// Whether its calls of compilers run as actions of their own, which changes nothing about its outputs.
    pub split: bool,
    /// Whether these may run on other workers.
    pub spread: bool,
    /// Whether it is a call of a step that runs on a worker already: it takes what is free, and its worker says what it looked at.
    pub call: bool,
    /// Where its build tools keep what they find by keys of their own, which changes nothing about its outputs either.
    pub tools: ToolSpace,
    /// Memory to reserve in place of what the action says.
    pub memory_bytes: Option<u64>,
    /// Directories of its input tree; not necessarily all.
    pub directories: HashMap<Digest, Bytes>,
    /// An earlier run of the same work that this one is to be compared with: it runs elsewhere and under other conditions, as far as the farm can.
    pub unlike: Option<Unlike>,
}

/// The run that another one is to differ from in its conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unlike {
    /// Where it ran.
    pub worker: String,
    /// How many CPUs it could run on; 0 if that is unknown.
    pub cpus: u32,
    /// What the new run takes for the name of its machine.
    pub host_name: String,
    /// Whether it takes what is free and no worker is kept free for it.
    pub opportunistic: bool,
}

/// The entries of build tools that steps share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolSpace {
    /// Its name, a hash; empty: there are none.
    pub name: String,
    /// Whether new ones are not kept.
    pub read_only: bool,
}

/// Options of the execution's owner.
#[derive(Debug, Default)]
pub struct Options {
    /// Scheduling options.
    pub scheduling: Config,
    /// Rules for properties of other farms.
    pub rules: Current<properties::Rules>,
    /// The remembered workers, and where they are recorded; by default they are forgotten when the process ends.
    pub memory: Memory,
    /// The key that seals leases; without it, a key that lasts as long as the process.
    pub key: Option<FarmKey>,
    /// The tenants' credentials for fetching.
    pub credentials: Credentials,
    /// The epoch in which this coordinator leads; 0 for the only one of a farm.
    pub epoch: u64,
}

/// A handle to the execution's owner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ExecutionHandle {
    messages: mpsc::UnboundedSender<Message>,
    /// The tenant whose actions it runs; empty for the default tenant.
    tenant: String,
    scopes: Scopes,
    credentials: Credentials,
    quota: Option<Quota>,
    stores: Stores,
    preparer: Arc<Preparer>,
    logs: Arc<LiveLogs>,
    leases: LiveLeases,
    waiters: Arc<AtomicU64>,
    places: Places,
    workers: watch::Receiver<u64>,
    pools: Arc<[Pool]>,
    queue_timeout: Duration,
    began: tokio::time::Instant,
}

/// A response that explains why there is no result.
pub fn failed(code: tonic::Code, message: impl Into<String>) -> reapi::ExecuteResponse {
    let status = rpc::Status { code: code as i32, message: message.into(), details: Vec::new() };
    reapi::ExecuteResponse { status: Some(status), ..Default::default() }
}

impl ExecutionHandle {
    /// Starts the owner's task on these stores.
    pub fn spawn(stores: Stores, scheduling: Config) -> Self {
        Self::open(stores, Options { scheduling, ..Options::default() })
    }

    /// Like [`spawn`](Self::spawn), with all options.
    pub fn open(stores: Stores, options: Options) -> Self {
        let Options { scheduling, rules, memory, key, credentials, epoch } = options;
        let (messages, receiver) = mpsc::unbounded_channel();
        let logs = Arc::new(LiveLogs::default());
        let scopes = Scopes::new(rules);
        let memory = memory.with_life(scheduling.remember_for);
        let preparer = scopes.add("", &stores).preparer;
        let (joined, workers) = watch::channel(0);
        let (pools, queue_timeout) = (scheduling.pools.clone().into(), Duration::from_millis(scheduling.queue_timeout));
        let leases = LiveLeases::new(key.unwrap_or_else(FarmKey::ephemeral));
        let shared = owner::Shared {
            scopes: scopes.clone(),
            logs: logs.clone(),
            leases: leases.clone(),
            epoch,
            distrusted: stores.distrusted.clone(),
        };
        let owner = owner::Owner::new(scheduling, shared, (messages.clone(), joined), memory);
        spawn_or_abort(owner.run(receiver));
        Self {
            messages,
            tenant: String::new(),
            scopes,
            credentials,
            quota: None,
            stores,
            preparer,
            logs,
            leases,
            waiters: Arc::default(),
            places: Places::default(),
            workers,
            pools,
            queue_timeout,
            began: tokio::time::Instant::now(),
        }
    }

    /// A handle for the actions of one tenant, on that tenant's own stores. Workers and the queue are shared.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str, stores: Stores, quota: Option<Quota>) -> Self {
        let preparer = self.scopes.add(tenant, &stores).preparer;
        let credentials = self.credentials.of_tenant(tenant);
        Self { tenant: tenant.to_owned(), quota, stores, preparer, credentials, ..self.clone() }
    }

    /// This tenant's credentials for fetching.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What stands for a secret's value in the key of an action: it shows whether two values of this tenant's are equal, and nothing else.
    pub fn secret_key(&self, secret: &v1::Secret) -> String {
        let parts = [self.tenant.as_bytes(), secret.name.as_bytes(), secret.value.as_bytes()];
        let mac = self.leases.key().seal(Purpose::Secret, &parts);
        mac.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The same handle under a quota.
    #[must_use]
    pub fn with_quota(self, quota: Option<Quota>) -> Self {
        Self { quota, ..self }
    }

    /// The live output of this tenant's running actions.
    pub fn logs(&self) -> Arc<TenantLogs> {
        Arc::new(TenantLogs::new(self.logs.clone(), self.tenant.clone()))
    }

    /// Reads an action and its command from the store.
    ///
    /// # Errors
    /// If one of them is missing or malformed.
    pub async fn load(&self, action: &Digest) -> Result<(reapi::Action, reapi::Command), Status> {
        self.preparer.load(action).await
    }

    /// Runs an action, joins its existing execution, or answers from the action cache.
    ///
    /// Errors are those that occur before there is an operation, such as an invalid action or missing blobs.
    pub async fn execute(&self, mut request: Request) -> Result<Attached, Status> {
        if !scope::is_lawful(&request.instance) {
            return Err(Status::invalid_argument(format!(
                "invalid instance name `{}`: it must not begin with `@`",
                request.instance
            )));
        }
        let known = request.known.take();
        let (action, command) = match &known {
            Some(known) => (known.action.clone(), known.command.clone()),
            None => self.preparer.load(&request.action_digest).await?,
        };
        let looked = (!request.skip_cache_lookup && request.shell.is_none() && !action.do_not_cache)
            .then(tokio::time::Instant::now);
        if looked.is_some() {
            let lookup = tracing::info_span!("cache lookup", hit = tracing::field::Empty);
            let cached = self.stores.cached_result(&request.instance, &request.action_digest);
            let cached = cached.instrument(lookup.clone()).await?;
            lookup.record("hit", cached.is_some());
            if let Some(result) = cached {
                return Ok(self.from_cache(result));
            }
        }
        let place = self.places.take(&action, &command)?;
        let mut prepared = self
            .preparer
            .prepare(
                &scope::scoped(&self.tenant, &request.instance),
                request.action_digest,
                (action, command),
                known.as_deref().map(|known| &known.directories),
            )
            .instrument(tracing::info_span!("check inputs"))
            .await?;
        if let Some(known) = &known {
            prepared.times = known.times;
            prepared.variables.clone_from(&known.variables);
            prepared.caches.clone_from(&known.caches);
            prepared.hosts.clone_from(&known.hosts);
            prepared.unlike.clone_from(&known.unlike);
            // Whoever wants a step to run wants its compilers to run.
            prepared.split = known.split && !request.skip_cache_lookup;
            prepared.spread = known.spread && prepared.split;
            let waits_for_all = known.unlike.as_ref().is_some_and(|unlike| unlike.opportunistic);
            prepared.requirements.opportunistic = known.call || waits_for_all;
            if let Some(bytes) = known.memory_bytes {
                prepared.requirements.capacity.memory_bytes = bytes;
            }
            if !request.skip_cache_lookup {
                prepared.tools.clone_from(&known.tools);
            }
        }
        if prepared.caches.len() > root::MAX_CACHES {
            return Err(Status::invalid_argument(format!(
                "the command has {} cache mounts; the farm allows at most {}",
                prepared.caches.len(),
                root::MAX_CACHES
            )));
        }
        let given = |name: &&String| request.secrets.iter().any(|secret| secret.name == **name);
        if let Some(name) = prepared.secrets.iter().find(|name| !given(name)) {
            return Err(Status::failed_precondition(format!(
                "the action needs the secret `{name}`, which was not provided; only `kiln build` provides secrets"
            )));
        }
        if let Some(agent) = prepared.agents.first().filter(|_| request.agents.is_none()) {
            return Err(Status::failed_precondition(format!(
                "the action mounts the SSH agent `{agent}`, which was not provided; only `kiln build` provides agents"
            )));
        }
        let given = self.credentials.of_action(&prepared.action, &prepared.command, prepared.network).await;
        prepared.credentials = given.map_err(Status::unavailable)?;
        let room = match &self.quota {
            Some(quota) => Some(quota.room().await?),
            None => None,
        };
        if !self.tenant.is_empty() {
            request.share.clone_from(&self.tenant);
        }
        let waiter = self.waiter();
        // A caller that is dropped before it is attached must not stay in the queue.
        let leaving = scopeguard::guard((), |()| self.leave(waiter));
        let notes = prepared.notes.clone();
        let (reply, answer) = oneshot::channel();
        let traceparent = trace::current();
        let request = Box::new(request);
        self.send(Message::Submit { waiter, prepared: Arc::new(prepared), request, looked, traceparent, reply });
        let (state, merged) = answer.await.map_err(|_| stopping())?;
        let attached = Attached::new(waiter, self.clone(), state, merged).with(place, room, notes);
        scopeguard::ScopeGuard::into_inner(leaving);
        Ok(attached)
    }

    fn waiter(&self) -> WaiterId {
        WaiterId(self.waiters.fetch_add(1, Ordering::Relaxed))
    }

    #[allow(clippy::wrong_self_convention)]
    fn from_cache(&self, result: reapi::ActionResult) -> Attached {
        let response = reapi::ExecuteResponse {
            result: Some(result),
            cached_result: true,
            status: Some(rpc::Status::default()),
            ..Default::default()
        };
        let done = Arc::new(Done { response, farm_fault: false });
        let (_, state) = watch::channel(State::Done { done, ran: None });
        Attached::new(self.waiter(), self.clone(), state, false)
    }

    /// Removes a waiting caller.
    pub fn leave(&self, waiter: WaiterId) {
        self.send(Message::Leave(waiter));
    }

    /// Accepts a worker's connection. Messages to the worker are read from `link`, which ends when the coordinator
    /// drops the worker.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` if another process is connected under the worker's name.
    pub async fn connect(
        &self,
        register: v1::Register,
        link: mpsc::Sender<v1::CoordinatorMessage>,
    ) -> Result<u64, Status> {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.send(Message::Connected { connection, register: Box::new(register), link, reply });
        answer.await.map_err(|_| stopping())??;
        Ok(connection)
    }

    /// What a call may access that carries a lease's grant in this header.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` if the caller does not hold that lease.
    pub fn admit(&self, header: &[u8], identity: &Identity) -> Result<LeaseAccess, Status> {
        let worker = (!identity.is_anonymous()).then_some(identity.name.as_str());
        self.leases.admit(header, worker, &self.scopes)
    }

    /// Forwards a worker's message; `room` is released once it has been handled.
    pub fn said(
        &self,
        worker: &str,
        connection: u64,
        message: v1::worker_message::Message,
        room: OwnedSemaphorePermit,
    ) {
        self.send(Message::Said { worker: worker.to_owned(), connection, message: Box::new(message), _room: room });
    }

    /// A worker's connection has ended.
    pub fn disconnected(&self, worker: &str, connection: u64) {
        self.send(Message::Disconnected { worker: worker.to_owned(), connection });
    }

    /// What a caller is waiting for; `None` if it is not waiting.
    pub async fn wait_of(&self, waiter: WaiterId) -> Option<Wait> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Wait { waiter, reply });
        answer.await.ok().flatten()
    }

    /// Starts or stops draining a worker. `NOT_FOUND` if the worker is unknown.
    pub async fn drain(&self, worker: String, on: bool) -> Result<(), Status> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Drain { worker, on, reply });
        answer.await.map_err(|_| stopping())?
    }

    /// Takes note that a worker is distrusted from now on, or trusted again, as the stores know it. When this returns, a distrusted worker
    /// has no leases: what it ran runs elsewhere.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the coordinator is stopping.
    pub async fn believe(&self, worker: String) -> Result<(), Status> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Believe { worker, reply });
        answer.await.map_err(|_| stopping())
    }

    /// The current workers and queues.
    pub async fn farm(&self) -> Result<v1::FarmStatus, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Farm { reply });
        let mut status = answer.await.map_err(|_| stopping())?;
        (status.store_bytes, status.store_capacity_bytes) = (self.stores.blobs.bytes(), self.stores.blobs.capacity());
        Ok(status)
    }

    /// The health of the stores that other coordinators share.
    pub fn shared_stores(&self) -> Vec<(&'static str, kiln_store::Health)> {
        self.stores.shared_health()
    }

    /// The configured worker pools.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// How long actions wait while no worker could run them.
    pub fn queue_timeout(&self) -> Duration {
        self.queue_timeout
    }

    /// Describes the limit if the tenant's quota is used up.
    pub fn full_quota(&self) -> Option<String> {
        self.quota.as_ref().and_then(Quota::full)
    }

    /// When this coordinator began to accept workers.
    pub fn began(&self) -> tokio::time::Instant {
        self.began
    }

    /// How many more actions with these requirements would start at once.
    async fn room(&self, requirements: Requirements) -> usize {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Room { requirements, reply });
        answer.await.unwrap_or_default()
    }

    /// A counter that changes when a worker joins or leaves.
    pub fn workers_changed(&self) -> watch::Receiver<u64> {
        self.workers.clone()
    }

    fn send(&self, message: Message) {
        // The owner lives as long as the process.
        let _ = self.messages.send(message);
    }
}

/// Runs a task that the process depends on. If it panics, the process aborts so that its supervisor can restart it:
/// without the task every call would fail.
fn spawn_or_abort(task: impl Future<Output = ()> + Send + 'static) {
    let task = tokio::spawn(task);
    tokio::spawn(async move {
        if let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(%error, "the scheduler's task panicked; the coordinator exits, and the next one re-adopts what is running");
            std::process::abort();
        }
    });
}

fn stopping() -> Status {
    Status::unavailable("the coordinator is shutting down; try again")
}
