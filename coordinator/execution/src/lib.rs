//! Execution: one task owns the scheduler's state and carries out what it decides; everyone else holds a handle.
//!
//! Invariant: the only way to run anything is [`ExecutionHandle::execute`] with an action's digest. Builds use it as Remote
//! Execution clients do.

mod attached;
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
mod wait;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_proto::digest::Digest;
use kiln_proto::{reapi, rpc, scope, v1};
use kiln_scheduler::{Config, Pool, WaiterId};
use kiln_telemetry::trace;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tonic::Status;
use tracing::Instrument;

pub use attached::{Attached, Done, State, Update};
pub use leases::LeaseAccess;
use leases::LiveLeases;
use log::LiveLogs;
use owner::Message;
use places::Places;
use prepare::Preparer;
pub use quota::Quota;
pub use wait::{Holder, Wait};

use kiln_auth::credentials::Credentials;
use kiln_auth::{FarmKey, Identity};
use kiln_store::Stores;
use log::TenantLogs;
use scopes::Scopes;

/// What a caller wants run.
#[derive(Debug, Clone)]
pub struct Request {
    /// REAPI instance name.
    pub instance: String,
    /// Which action.
    pub action_digest: Digest,
    /// Run it even where its result is cached.
    pub skip_cache_lookup: bool,
    /// Lower is more urgent.
    pub priority: i32,
    /// Whose share of the farm it uses.
    pub tenant: String,
    /// Which build or invocation it belongs to.
    pub build: String,
    /// Weight of the longest path that waits for it within its build.
    pub path_weight: u64,
    /// The secrets that the action names.
    pub secrets: Vec<v1::Secret>,
    /// How long it waits while no worker could take it; the farm's own limit where it is not set.
    pub queue_timeout: Option<Duration>,
}

/// What an execution is started with.
#[derive(Debug, Default)]
pub struct Options {
    /// How actions are scheduled.
    pub scheduling: Config,
    /// What other farms' properties mean.
    pub rules: properties::Rules,
    /// Where it is written down which workers there are; they are forgotten with the process where it is nowhere.
    pub memory: Option<PathBuf>,
    /// What leases are granted under; a key that ends with the process where it is left out.
    pub key: Option<FarmKey>,
    /// What tenants fetch with.
    pub credentials: Credentials,
}

/// A handle on the execution's owner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ExecutionHandle {
    messages: mpsc::UnboundedSender<Message>,
    /// Whose actions it takes; empty for the default tenant's.
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

/// A response that says why there is no result.
pub fn failed(code: tonic::Code, message: impl Into<String>) -> reapi::ExecuteResponse {
    let status = rpc::Status { code: code as i32, message: message.into(), details: Vec::new() };
    reapi::ExecuteResponse { status: Some(status), ..Default::default() }
}

impl ExecutionHandle {
    /// Starts the owner's task over these stores.
    pub fn spawn(stores: Stores, scheduling: Config) -> Self {
        Self::open(stores, Options { scheduling, ..Options::default() })
    }

    /// As [`spawn`](Self::spawn), with all that can be chosen.
    pub fn open(stores: Stores, options: Options) -> Self {
        let Options { scheduling, rules, memory, key, credentials } = options;
        let (messages, receiver) = mpsc::unbounded_channel();
        let logs = Arc::new(LiveLogs::default());
        let scopes = Scopes::new(rules);
        let memory = memory::Memory::open(memory, scheduling.remember_for);
        let preparer = scopes.add("", &stores).preparer;
        let (joined, workers) = watch::channel(0);
        let (pools, queue_timeout) = (scheduling.pools.clone().into(), Duration::from_millis(scheduling.queue_timeout));
        let leases = LiveLeases::new(key.unwrap_or_else(FarmKey::ephemeral));
        let shared = owner::Shared { scopes: scopes.clone(), logs: logs.clone(), leases: leases.clone() };
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

    /// A handle for the actions of one tenant alone, over stores of its own. Workers and the queue are the same.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str, stores: Stores, quota: Option<Quota>) -> Self {
        let preparer = self.scopes.add(tenant, &stores).preparer;
        let credentials = self.credentials.of_tenant(tenant);
        Self { tenant: tenant.to_owned(), quota, stores, preparer, credentials, ..self.clone() }
    }

    /// What this tenant fetches with.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
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

    /// Runs an action, joins its execution, or answers from the action cache.
    ///
    /// Errors are those that come before there is an operation: a bad action, missing blobs.
    pub async fn execute(&self, mut request: Request) -> Result<Attached, Status> {
        if !scope::is_lawful(&request.instance) {
            return Err(Status::invalid_argument(format!(
                "invalid instance name `{}`: it must not begin with `@`",
                request.instance
            )));
        }
        let (action, command) = self.preparer.load(&request.action_digest).await?;
        let looked = (!request.skip_cache_lookup && !action.do_not_cache).then(tokio::time::Instant::now);
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
            .prepare(&scope::scoped(&self.tenant, &request.instance), request.action_digest, action, command)
            .instrument(tracing::info_span!("check inputs"))
            .await?;
        let given = |name: &&String| request.secrets.iter().any(|secret| secret.name == **name);
        if let Some(name) = prepared.secrets.iter().find(|name| !given(name)) {
            return Err(Status::failed_precondition(format!(
                "the action names the secret `{name}`, which it was not given; only `kiln build` gives secrets"
            )));
        }
        let given = self.credentials.of_action(&prepared.action, &prepared.command, prepared.network).await;
        prepared.credentials = given.map_err(Status::unavailable)?;
        let room = match &self.quota {
            Some(quota) => Some(quota.room().await?),
            None => None,
        };
        if !self.tenant.is_empty() {
            request.tenant.clone_from(&self.tenant);
        }
        let waiter = self.waiter();
        // Whoever goes away before they are attached waits no more.
        let leaving = scopeguard::guard((), |()| self.leave(waiter));
        let notes = prepared.notes.clone();
        let (reply, answer) = oneshot::channel();
        let traceparent = trace::current();
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
        let (_, state) = watch::channel(State::Done(Arc::new(Done { response, farm_fault: false })));
        Attached::new(self.waiter(), self.clone(), state, false)
    }

    /// A waiter goes away.
    pub fn leave(&self, waiter: WaiterId) {
        self.send(Message::Leave(waiter));
    }

    /// Takes a worker's link: what it is told comes from `link`, which ends when the worker is not listened to any more.
    ///
    /// # Errors
    /// ALREADY_EXISTS where another process is connected under the worker's name.
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

    /// What a call may do that shows a lease's grant in this header.
    ///
    /// # Errors
    /// PERMISSION_DENIED where the caller does not have that lease.
    pub fn admit(&self, header: &[u8], identity: &Identity) -> Result<LeaseAccess, Status> {
        let worker = (!identity.is_anonymous()).then_some(identity.name.as_str());
        self.leases.admit(header, worker, &self.scopes)
    }

    /// Hands on what a worker said; `room` is given back once it was heard.
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

    /// What a caller waits for; `None` where it waits for nothing.
    pub async fn wait_of(&self, waiter: WaiterId) -> Option<Wait> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Wait { waiter, reply });
        answer.await.ok().flatten()
    }

    /// Gives a worker no new work, or takes that back. `NOT_FOUND` for a worker that is not known.
    pub async fn drain(&self, worker: String, on: bool) -> Result<(), Status> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Drain { worker, on, reply });
        answer.await.map_err(|_| stopping())?
    }

    /// Workers and queues as they are.
    pub async fn farm(&self) -> Result<v1::FarmStatus, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Farm { reply });
        let mut status = answer.await.map_err(|_| stopping())?;
        (status.store_bytes, status.store_capacity_bytes) = (self.stores.blobs.bytes(), self.stores.blobs.capacity());
        Ok(status)
    }

    /// Workers that the farm has by declaration.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// How long actions wait while no worker could take them.
    pub fn queue_timeout(&self) -> Duration {
        self.queue_timeout
    }

    /// Says in words that the tenant has no room for more actions, where that is so.
    pub fn full_quota(&self) -> Option<String> {
        self.quota.as_ref().and_then(Quota::full)
    }

    /// When this coordinator began to take workers.
    pub fn began(&self) -> tokio::time::Instant {
        self.began
    }

    /// A counter that moves when a worker joins or leaves.
    pub fn workers_changed(&self) -> watch::Receiver<u64> {
        self.workers.clone()
    }

    fn send(&self, message: Message) {
        // The owner ends only with the process.
        let _ = self.messages.send(message);
    }
}

/// Runs a task that others cannot do without. Where it panics the process ends, so that whoever supervises it starts a sound one: every call would
/// fail for ever without it.
fn spawn_or_abort(task: impl Future<Output = ()> + Send + 'static) {
    let task = tokio::spawn(task);
    tokio::spawn(async move {
        if let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(%error, "the scheduler's task panicked; the coordinator ends, and what runs is taken back by the next");
            std::process::abort();
        }
    });
}

fn stopping() -> Status {
    Status::unavailable("the coordinator is shutting down; try again")
}
