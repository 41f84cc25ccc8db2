//! Leases in progress, and what their workers may access.
//!
//! Invariant: a worker reads and writes a tenant's blobs only while it holds one of that tenant's leases, and reads
//! only blobs that this lease's action refers to, the times of its root, the caches that it names, and what others made of its calls. What it
//! names to others, it may read, has sent, or has shown to have: to know a digest proves nothing.

mod elsewhere;
mod grant;
mod possession;
mod reach;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::{root, scope, v1};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::Status;

use super::Agents;
use super::scopes::{Scope, Scopes};
use super::shells::{Ends, WorkersEnds};
pub use elsewhere::Elsewhere;
pub use grant::{Error as GrantError, Grant};
use kiln_state::farm_key::FarmKey;
pub use possession::{Left, is_sealed};
use reach::{Reach, Shown};

/// How long after its start a coordinator accepts its predecessor's leases before their workers have registered again.
const RETURNING: Duration = Duration::from_secs(60);
/// Number of finished leases that are remembered.
const FINISHED: usize = 65_536;
/// Maximum number of calls that one lease has under way at once.
const MAX_CALLS: usize = 256;

#[derive(Debug, Default)]
struct Live {
    /// Whether this coordinator granted it, or its worker has reported it to this coordinator.
    confirmed: bool,
    reach: Arc<OnceCell<Reach>>,
    shown: Arc<Shown>,
    agents: Option<GivenAgents>,
    shell: Option<Arc<Ends>>,
    charge: Option<Charge>,
    calls: Calls,
    alive: watch::Sender<()>,
}

/// Who is charged for what runs on behalf of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The share of the farm.
    pub share: String,
    /// The build or invocation.
    pub build: String,
    /// Its priority.
    pub priority: i32,
}

/// The calls that a lease may have under way.
#[derive(Debug, Clone)]
struct Calls(Arc<Semaphore>);

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CALLS)))
    }
}

/// The SSH agents of a lease's caller, and those of them that the action mounts.
type GivenAgents = (Arc<dyn Agents>, BTreeSet<String>);

#[derive(Debug, Default)]
struct State {
    live: HashMap<u64, Live>,
    finished: HashSet<u64>,
    order: VecDeque<u64>,
}

/// All leases in progress. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveLeases {
    key: FarmKey,
    began: Instant,
    state: Arc<Mutex<State>>,
}

impl LiveLeases {
    pub fn new(key: FarmKey) -> Self {
        Self { key, began: Instant::now(), state: Arc::default() }
    }

    pub fn key(&self) -> &FarmKey {
        &self.key
    }

    /// Records the start of a lease.
    pub fn begin(&self, lease: u64) {
        let mut state = self.state.lock();
        state.live.entry(lease).or_default().confirmed = true;
    }

    /// Lets a lease ask these agents for as long as it lasts.
    pub fn give_agents(&self, lease: u64, agents: Arc<dyn Agents>, names: BTreeSet<String>) {
        if let Some(live) = self.state.lock().live.get_mut(&lease) {
            live.agents = Some((agents, names));
        }
    }

    /// Lets a lease serve this shell.
    pub fn give_shell(&self, lease: u64, ends: Arc<Ends>) {
        if let Some(live) = self.state.lock().live.get_mut(&lease) {
            live.shell = Some(ends);
        }
    }

    /// Lets a lease have calls run, which are charged so.
    pub fn charge(&self, lease: u64, charge: Charge) {
        if let Some(live) = self.state.lock().live.get_mut(&lease) {
            live.charge = Some(charge);
        }
    }

    /// Records the end of a lease. Its worker may bring it back unless it was finished.
    pub fn end(&self, lease: u64) {
        self.state.lock().live.remove(&lease);
    }

    /// Records that a lease has its final result.
    pub fn finish(&self, lease: u64) {
        let mut state = self.state.lock();
        state.live.remove(&lease);
        if state.finished.insert(lease) {
            state.order.push_back(lease);
        }
        while state.order.len() > FINISHED {
            let oldest = state.order.pop_front();
            oldest.map(|lease| state.finished.remove(&lease));
        }
    }

    pub fn is_finished(&self, lease: u64) -> bool {
        self.state.lock().finished.contains(&lease)
    }

    /// What a call with this header may access; `worker` is the caller, if it was authenticated.
    pub fn admit(&self, header: &[u8], worker: Option<&str>, scopes: &Scopes) -> Result<LeaseAccess, Status> {
        let grant = Grant::open_header(&self.key, header, worker).map_err(refused)?;
        let mut state = self.state.lock();
        let is_returning = self.began.elapsed() < RETURNING && !state.finished.contains(&grant.lease);
        let known = state.live.get(&grant.lease).filter(|live| live.confirmed || is_returning);
        let live = match known {
            Some(live) => live,
            None if is_returning => state.live.entry(grant.lease).or_default(),
            None => {
                state.live.remove(&grant.lease);
                return Err(Status::permission_denied(format!(
                    "lease {} of worker `{}` is over; a worker reads and writes blobs only for a lease that it holds",
                    grant.lease, grant.worker
                )));
            }
        };
        Ok(self.access(grant, live, scopes))
    }

    /// What the worker of a lease may access that has not ended; none if it has.
    pub fn access_of(&self, grant: &Grant, scopes: &Scopes) -> Option<LeaseAccess> {
        Some(self.access(grant.clone(), self.state.lock().live.get(&grant.lease)?, scopes))
    }

    fn access(&self, grant: Grant, live: &Live, scopes: &Scopes) -> LeaseAccess {
        LeaseAccess {
            grant,
            key: self.key.clone(),
            reach: live.reach.clone(),
            shown: live.shown.clone(),
            agents: live.agents.clone(),
            shell: live.shell.clone(),
            charge: live.charge.clone(),
            calls: live.calls.clone(),
            alive: live.alive.subscribe(),
            scopes: scopes.clone(),
            is_elsewhere: false,
        }
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.state.lock().live.len()
    }
}

/// What a worker's call for a lease may access. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LeaseAccess {
    grant: Grant,
    key: FarmKey,
    reach: Arc<OnceCell<Reach>>,
    shown: Arc<Shown>,
    agents: Option<GivenAgents>,
    shell: Option<Arc<Ends>>,
    charge: Option<Charge>,
    calls: Calls,
    alive: watch::Receiver<()>,
    scopes: Scopes,
    is_elsewhere: bool,
}

fn refused(error: GrantError) -> Status {
    Status::permission_denied(format!("{error}; a worker reads and writes blobs only for a lease that it holds"))
}

impl LeaseAccess {
    /// Whether another coordinator granted the lease, which may know of more that it may read.
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// The tenant of the lease; empty for the default tenant.
    pub fn tenant(&self) -> &str {
        self.grant.tenant()
    }

    /// A blob is readable, too.
    pub async fn add_blob(&self, blob: &Digest) -> Result<(), Status> {
        self.reach().await?.add([blob].into_iter());
        Ok(())
    }

    fn scope(&self) -> Result<Scope, Status> {
        self.scopes.of(self.tenant()).ok_or_else(|| Status::unavailable("try again"))
    }

    async fn reach(&self) -> Result<&Reach, Status> {
        self.reach
            .get_or_try_init(|| async {
                let digests = self.scope()?.preparer.reachable(&self.grant.action).await?;
                Ok(Reach::of(digests.iter().chain(&self.grant.times)))
            })
            .await
    }

    /// Checks that the lease's action refers to this blob.
    pub async fn may_read(&self, digest: &Digest) -> Result<(), Status> {
        let reach = self.reach().await?;
        if reach.has(digest) {
            return Ok(());
        }
        self.add_trees(reach).await?;
        if reach.has(digest) {
            return Ok(());
        }
        if self.is_elsewhere {
            return Err(Status::not_found(format!(
                "blob `{digest}` is not known here to be part of lease {}",
                self.grant.lease
            )));
        }
        tracing::warn!(
            worker = self.grant.worker, lease = self.grant.lease, tenant = self.tenant(), %digest,
            "refused a worker's access to a blob outside its lease"
        );
        Err(Status::permission_denied(format!("blob `{digest}` is not part of what lease {} runs", self.grant.lease)))
    }

    async fn add_trees(&self, reach: &Reach) -> Result<(), Status> {
        let mut trees = reach.trees().await;
        while let Some(tree) = trees.last() {
            reach.add(self.scope()?.preparer.tree(tree).await?.iter());
            trees.pop();
        }
        Ok(())
    }

    /// The worker that holds the lease.
    pub fn worker(&self) -> &str {
        &self.grant.worker
    }

    /// The tenant's instance that the lease belongs to.
    pub fn instance(&self) -> &str {
        scope::split(&self.grant.instance).1
    }

    /// The function of the lease's digests.
    pub fn function(&self) -> DigestFunction {
        self.grant.action.function
    }

    /// Checks that a cache mount of the lease's action has this name.
    pub fn may_use_cache(&self, name: &v1::CacheName) -> Result<(), Status> {
        if self.grant.caches.contains(&root::entitlement(name)) {
            return Ok(());
        }
        tracing::warn!(
            worker = self.grant.worker,
            lease = self.grant.lease,
            tenant = self.tenant(),
            cache = name.id,
            "refused a worker's access to a cache outside its lease"
        );
        Err(Status::permission_denied(format!("cache `{}` is not one of lease {}", name.id, self.grant.lease)))
    }

    /// Whether a shell has the place of the lease's action: it reads the action's caches, and leaves nothing in them.
    pub fn is_shell(&self) -> bool {
        self.grant.shell
    }

    /// The environment for which the lease's worker may look up and keep calls of compilers.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` if the lease's action is not split into calls.
    pub fn calls(&self) -> Result<&str, Status> {
        if !self.grant.calls.is_empty() {
            return Ok(&self.grant.calls);
        }
        let (worker, lease, tenant) = (&self.grant.worker, self.grant.lease, self.tenant());
        tracing::warn!(worker, lease, tenant, "refused a worker's access to calls for a lease that has none");
        Err(Status::permission_denied(format!("the action of lease {lease} is not split into calls")))
    }

    /// The blob with the times of the root that its action runs in, if it has one.
    pub fn times(&self) -> Option<Digest> {
        self.grant.times
    }

    /// The lease's action.
    pub fn action(&self) -> &Digest {
        &self.grant.action
    }

    /// Who is charged for calls of this lease, and its place among those that it may have under way.
    ///
    /// # Errors
    /// If it may have none, or no more than it has.
    pub(crate) fn charge(&self) -> Result<(Charge, OwnedSemaphorePermit), Status> {
        self.calls()?;
        let charge = self.charge.clone();
        let charge = charge.ok_or_else(|| {
            Status::failed_precondition(
                "calls of this lease run on its own worker: its step says so, or it is older than this coordinator",
            )
        })?;
        let full = |_| {
            Status::resource_exhausted(format!(
                "lease {} has {MAX_CALLS} calls under way; try again when some have ended",
                self.grant.lease
            ))
        };
        Ok((charge, self.calls.0.clone().try_acquire_owned().map_err(full)?))
    }

    /// Whether calls of this lease may run on other workers.
    pub(crate) fn may_spread(&self) -> bool {
        self.charge.is_some()
    }

    /// Completes when the lease is over.
    pub async fn over(&mut self) {
        while self.alive.changed().await.is_ok() {}
    }

    /// The space whose entries of build tools the lease's worker may look up, and keep if `writes`.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` if it may not.
    pub fn tools(&self, writes: bool) -> Result<&str, Status> {
        let space = &self.grant.tools;
        let may = !writes || !space.read_only;
        if may && !space.name.is_empty() {
            return Ok(&space.name);
        }
        let (worker, lease, tenant) = (&self.grant.worker, self.grant.lease, self.tenant());
        tracing::warn!(worker, lease, tenant, writes, "refused a worker's access to the caches of build tools");
        let what = if writes { "keep" } else { "look up" };
        Err(Status::permission_denied(format!("lease {lease} may not {what} entries of build tools")))
    }

    /// The agents of the lease's caller, if its action mounts the one with this name.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` if it does not.
    pub fn agent(&self, name: &str) -> Result<Arc<dyn Agents>, Status> {
        match &self.agents {
            Some((agents, names)) if names.contains(name) => Ok(agents.clone()),
            _ => {
                let (worker, lease, tenant) = (&self.grant.worker, self.grant.lease, self.tenant());
                tracing::warn!(
                    worker,
                    lease,
                    tenant,
                    agent = name,
                    "refused a worker's access to an agent outside its lease"
                );
                Err(Status::permission_denied(format!("the SSH agent `{name}` is not one of lease {lease}")))
            }
        }
    }

    /// The shell that the lease's worker serves, which it takes once.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` if the lease is not one of a shell.
    pub fn shell(&self) -> Result<WorkersEnds, Status> {
        if let Some(ends) = &self.shell {
            return ends.take();
        }
        let (worker, lease, tenant) = (&self.grant.worker, self.grant.lease, self.tenant());
        tracing::warn!(worker, lease, tenant, "refused a worker's access to a shell for a lease that has none");
        Err(Status::permission_denied(format!("lease {lease} is not one of a shell")))
    }

    /// Everything that a tree consists of is readable, too.
    pub async fn add_tree(&self, tree: Digest) -> Result<(), Status> {
        self.reach().await?.add_tree(tree).await;
        Ok(())
    }

    /// The chunks of a readable blob are readable, too.
    pub async fn add_chunks(&self, chunks: &[Digest]) -> Result<(), Status> {
        self.reach().await?.add(chunks.iter());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::ToolSpace;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn grant(lease: u64) -> Grant {
        let action = DigestFunction::Sha256.digest(b"action");
        let name = v1::CacheName { id: "own".into(), ..Default::default() };
        let caches = vec![root::entitlement(&name)];
        let calls = if lease == 1 { "environment" } else { "" };
        let name = if lease == 2 { "" } else { "space" };
        let tools = ToolSpace { name: name.to_owned(), read_only: lease == 3 };
        Grant {
            lease,
            worker: "vm".into(),
            instance: "main".into(),
            action,
            times: None,
            caches,
            calls: calls.into(),
            tools,
            shell: false,
            challenge: None,
        }
    }

    #[tokio::test]
    async fn a_lease_says_whether_its_tools_have_entries_and_may_keep_new_ones() {
        let (leases, scopes) = (LiveLeases::new(FarmKey::ephemeral()), Scopes::new(kiln_state::Current::default()));
        let space = |lease, writes| {
            leases.begin(lease);
            let header = URL_SAFE_NO_PAD.encode(grant(lease).seal(leases.key(), Duration::from_secs(60)));
            let access = leases.admit(header.as_bytes(), Some("vm"), &scopes)?;
            access.tools(writes).map(str::to_owned)
        };
        assert_eq!((space(1, false).unwrap(), space(1, true).unwrap()), ("space".to_owned(), "space".to_owned()));
        assert_eq!(space(3, false).unwrap(), "space");
        for (lease, writes) in [(2, false), (2, true), (3, true)] {
            assert_eq!(space(lease, writes).unwrap_err().code(), tonic::Code::PermissionDenied, "{lease} {writes}");
        }
    }

    #[tokio::test]
    async fn a_lease_entitles_to_the_caches_that_it_names() {
        let (leases, scopes) = (LiveLeases::new(FarmKey::ephemeral()), Scopes::new(kiln_state::Current::default()));
        leases.begin(1);
        let header = URL_SAFE_NO_PAD.encode(grant(1).seal(leases.key(), Duration::from_secs(60)));
        let access = leases.admit(header.as_bytes(), Some("vm"), &scopes).unwrap();
        let named = |id: &str, project: &str| v1::CacheName {
            id: id.into(),
            project: project.into(),
            ..v1::CacheName::default()
        };
        assert!(access.may_use_cache(&named("own", "")).is_ok());
        for (id, project) in [("other", ""), ("own", "another"), ("", "own")] {
            assert!(access.may_use_cache(&named(id, project)).unwrap_err().message().contains("not one of lease 1"));
        }
    }

    #[tokio::test]
    async fn only_a_lease_whose_action_is_split_may_ask_about_calls() {
        let (leases, scopes) = (LiveLeases::new(FarmKey::ephemeral()), Scopes::new(kiln_state::Current::default()));
        let environment = |lease| {
            leases.begin(lease);
            let header = URL_SAFE_NO_PAD.encode(grant(lease).seal(leases.key(), Duration::from_secs(60)));
            let access = leases.admit(header.as_bytes(), Some("vm"), &scopes)?;
            access.calls().map(str::to_owned)
        };
        assert_eq!(environment(1).unwrap(), "environment");
        assert_eq!(environment(2).unwrap_err().code(), tonic::Code::PermissionDenied);
    }

    #[derive(Debug)]
    struct Echo;

    #[async_trait::async_trait]
    impl Agents for Echo {
        async fn ask(&self, _agent: &str, request: bytes::Bytes) -> bytes::Bytes {
            request
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_lease_that_mounts_an_agent_may_ask_it_and_only_while_it_lasts() {
        let (leases, scopes) = (LiveLeases::new(FarmKey::ephemeral()), Scopes::new(kiln_state::Current::default()));
        let header = |lease| URL_SAFE_NO_PAD.encode(grant(lease).seal(leases.key(), Duration::from_secs(60)));
        let agent = |lease, worker, name: &str| {
            let access = leases.admit(header(lease).as_bytes(), Some(worker), &scopes)?;
            access.agent(name).map(drop)
        };
        for lease in [1, 2] {
            leases.begin(lease);
        }
        leases.give_agents(1, Arc::new(Echo), ["default".to_owned()].into());
        assert!(agent(1, "vm", "default").is_ok());
        for (lease, worker, name) in
            [(2, "vm", "default"), (1, "vm", "other"), (1, "another", "default"), (3, "vm", "default")]
        {
            let refused = agent(lease, worker, name).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{lease} {worker} {name}");
        }
        leases.finish(1);
        assert!(agent(1, "vm", "default").is_err(), "the lease is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_opens_the_store_only_while_its_lease_is_under_way() {
        let (leases, scopes) = (LiveLeases::new(FarmKey::ephemeral()), Scopes::new(kiln_state::Current::default()));
        let header = |lease| URL_SAFE_NO_PAD.encode(grant(lease).seal(leases.key(), Duration::from_secs(60)));
        let admit = |header: &str, worker| leases.admit(header.as_bytes(), worker, &scopes).map(drop);
        leases.begin(1);
        assert!(admit(&header(1), Some("vm")).is_ok());
        assert!(admit(&header(1), Some("other")).unwrap_err().message().contains("another worker"));
        // The predecessor's, before their workers are back.
        assert!(admit(&header(2), Some("vm")).is_ok());
        leases.finish(1);
        assert!(admit(&header(1), Some("vm")).unwrap_err().message().contains("is over"));
        tokio::time::advance(RETURNING).await;
        assert!(admit(&header(2), Some("vm")).unwrap_err().message().contains("is over"));
        assert!(admit(&header(3), Some("vm")).is_err());
        assert_eq!(leases.count(), 0, "expected nothing to stay of leases that are over");
    }
}
