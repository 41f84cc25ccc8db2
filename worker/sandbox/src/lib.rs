//! The sandbox: runs an action in its own namespaces, on a read-only root made of the machine's own system.
//!
//! Invariant: an action sees the system's directories, its inputs at [`BUILD`](executor::BUILD), a private `/tmp` and
//! its own processes, and nothing else of the worker. What it writes to its inputs never reaches the cache, because
//! they are the lower layer of an overlay. When its command ends or is stopped, every process that it started is gone.

mod cgroup;
mod config;
mod confined;
mod held;
mod host;
mod ids;
mod init;
mod kept;
mod metadata;
mod network;
mod port;
mod prepare;
mod root;
mod rooted;
mod session;
mod spawner;
mod spec;
mod tools;
mod trial;
mod unconfined;
mod watched;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use config::{Config, Error, Mode};
pub use host::within;
pub use ids::IDS_PER_JOB as IDS_OF_AN_ACTION;
pub use ids::SubIds;
pub use init::become_init_if_asked;
pub use network::Isolation;
pub use network::become_network_if_asked;
pub use rooted::{Layout, OnDisk, Roots, Way};
pub use tools::Tools;

use kiln_executor::scratch::{self, Scratch};
use kiln_executor::{self as executor, Chunk, Executor, Finished, Job, Place};

#[derive(Debug)]
struct Shared {
    config: Config,
    confined: bool,
    why_not: Option<String>,
    /// The allocator of ids, or why actions have no ids of their own.
    ids: Result<ids::Ids, String>,
    cgroups: Option<cgroup::Cgroups>,
    metadata: Option<metadata::Closed>,
    /// What creates networks, or why steps have none of their own.
    networks: Result<network::Networks, String>,
    /// Ports of the machine's loopback that steps with network access can reach on their own.
    ports: Vec<u16>,
    host: host::Host,
    /// How jobs run in roots of their own, or why they do not.
    roots: Result<Roots, String>,
    spawner: Arc<spawner::Spawner>,
    loopbacks: Arc<network::Loopbacks>,
    /// Whether one can run jobs one after another.
    keeps: bool,
    kept: Arc<held::Kept>,
}

/// What a machine can do for actions, or in words why it cannot.
#[derive(Debug, Clone)]
pub struct Findings {
    /// Isolate them at all.
    pub sandbox: Result<(), String>,
    /// Run them with ids other than the worker's.
    pub ids: Result<String, String>,
    /// Give each a network of its own, and with which program.
    pub network: Result<String, String>,
    /// Run them in root file systems of their own.
    pub roots: Result<Roots, String>,
    /// Limit them by control groups.
    pub limits: Option<String>,
}

/// Runs commands isolated from the worker and from each other. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

impl Sandbox {
    /// Finds out what the kernel allows, and removes what an earlier run left in the scratch directory.
    ///
    /// # Errors
    /// [`Error::Impossible`] in mode `required` if no sandbox is possible, [`Error::Root`] if actions cannot run on the
    /// root.
    pub fn open(config: Config) -> Result<Self, Error> {
        let scratch = |source| Error::Scratch { path: config.scratch.clone(), source };
        scratch::sweep(&config.scratch).map_err(scratch)?;
        // Jobs may leave files that belong to the worker with modes of their choice, including set-user-id.
        std::fs::set_permissions(&config.scratch, std::fs::Permissions::from_mode(0o700)).map_err(scratch)?;
        cgroup::sweep();
        let host = host::Host::look(&config);
        let (why_not, ids) = match config.mode {
            Mode::Off => {
                let why = "it was started with `--sandbox off`".to_owned();
                (Some(why.clone()), Err(why))
            }
            Mode::Auto | Mode::Required => match trial::ids(&config, &host) {
                Ok(ids) => (None, Ok(ids)),
                Err(why) => (trial::sandbox(&config, &host, None).err(), Err(why)),
            },
        };
        if let (Some(root), Some(reason)) = (&config.root, &why_not) {
            return Err(Error::Root { root: root.clone(), reason: reason.clone() });
        }
        if config.mode == Mode::Required
            && let Some(reason) = why_not
        {
            return Err(Error::Impossible { reason });
        }
        let cgroups = if why_not.is_none() { cgroup::Cgroups::open() } else { None };
        let metadata = if why_not.is_none() { metadata::Closed::open() } else { None };
        let ports = network::loopback_ports(&host);
        let confined = why_not.is_none();
        let found = match config.network {
            Isolation::Off => Err("`--network-isolation off`".to_owned()),
            _ if !confined => Err("the sandbox is off".to_owned()),
            _ => network::Networks::find(&config.init()),
        };
        let required = config.network == Isolation::Required;
        let (networks, roots) = (Err("not tried yet".to_owned()), Err("not tried yet".to_owned()));
        let spawner = spawner::Spawner::new(config.init());
        let mut shared = Shared {
            confined,
            why_not,
            ids,
            cgroups,
            metadata,
            networks,
            ports,
            host,
            roots,
            spawner,
            loopbacks: Arc::default(),
            keeps: false,
            kept: Arc::default(),
            config,
        };
        shared.keeps = shared.cgroups.is_some() && shared.can_keep();
        (shared.networks, shared.roots) = shared.try_out(found);
        match &shared.networks {
            Err(reason) if required => Err(Error::NoNetwork { reason: reason.clone() }),
            _ => Ok(Self { shared: Arc::new(shared) }),
        }
    }

    /// Describes how actions are isolated.
    pub fn describe(&self) -> String {
        if let Some(why) = &self.shared.why_not {
            return format!("OFF, actions run unconfined with the worker's own privileges: {why}");
        }
        let limits = match &self.shared.cgroups {
            Some(cgroups) => cgroups.describe(),
            None => "a watchdog (no control group can be written)",
        };
        let network = match (&self.shared.networks, self.closes_metadata()) {
            (Ok(networks), _) => format!("steps with network access have their own network ({})", networks.program()),
            (Err(why), true) => {
                format!("steps with network access share the machine's network, without metadata addresses ({why})")
            }
            (Err(why), false) => format!(
                "steps with network access share the machine's network, including metadata addresses ({why}; to block these anyway, \
                 the worker must be root, and cgroup2 must be mounted)"
            ),
        };
        let ids = match &self.shared.ids {
            Ok(ids) => ids.describe(),
            Err(why) => format!("actions run as the worker's own user ({why})"),
        };
        format!("namespaces, {ids}, limits by {limits}, {network}")
    }

    /// What was found out about this machine.
    pub fn findings(&self) -> Findings {
        let shared = &self.shared;
        Findings {
            sandbox: shared.why_not.clone().map_or(Ok(()), Err),
            ids: shared.ids.as_ref().map(ids::Ids::describe).map_err(Clone::clone),
            network: shared.networks.as_ref().map(|networks| networks.program().to_owned()).map_err(Clone::clone),
            roots: shared.roots.clone(),
            limits: shared.cgroups.as_ref().map(|cgroups| cgroups.describe().to_string()),
        }
    }

    /// Whether actions run with users and groups other than the worker's.
    pub fn has_own_ids(&self) -> bool {
        self.shared.ids.is_ok()
    }

    /// The user and group that must own inputs on disk; `None` if it is the worker's own.
    pub fn owner_of_inputs(&self) -> Option<u32> {
        self.shared.ids.as_ref().ok().and_then(ids::Ids::owner)
    }

    /// How actions run in root file systems of their own, or why they cannot.
    pub fn roots(&self) -> Result<Roots, &str> {
        self.shared.roots.as_ref().copied().map_err(String::as_str)
    }

    /// Whether actions in such roots may ask for the machine's network.
    pub fn allows_host_network(&self) -> bool {
        self.shared.config.host_network && self.shared.roots.is_ok()
    }

    /// Strings masked in the output of actions with network access.
    pub fn hidden(&self) -> &[Zeroizing<String>] {
        &self.shared.host.secrets
    }

    /// Whether actions are isolated at all.
    pub fn is_confined(&self) -> bool {
        self.shared.confined
    }

    /// Whether steps with network access are kept from the addresses where clouds serve a machine's credentials.
    pub fn closes_metadata(&self) -> bool {
        self.shared.metadata.is_some() || self.has_own_networks()
    }

    /// Whether each step with network access has its own network.
    pub fn has_own_networks(&self) -> bool {
        self.shared.networks.is_ok()
    }

    /// The `PATH` of an action that sets none.
    pub fn path(&self) -> String {
        if self.shared.confined { self.shared.config.tools.path() } else { self.shared.config.tools.host_path() }
    }

    /// This machine's directories that hold an action's tools.
    pub fn host_path(&self) -> String {
        self.shared.config.tools.host_path()
    }

    /// Runs a command until it ends and sends its output as it appears. The sender is dropped once everything was sent.
    ///
    /// # Errors
    /// Only if the sandbox itself fails; a command that fails is not an error.
    pub async fn run(
        &self,
        job: Job,
        output: mpsc::Sender<Chunk>,
        cancel: CancellationToken,
    ) -> Result<Finished, Error> {
        let scratch = Scratch::new(&self.shared.config.scratch)
            .map_err(|source| Error::Scratch { path: self.shared.config.scratch.clone(), source })?;
        if self.shared.confined || matches!(job.place, Place::Root(_)) {
            confined::run(&self.shared, scratch, job, output, cancel).await
        } else if job.session.is_some() {
            let words = "this worker runs steps without a sandbox (`--sandbox off`, or none is possible: see `kiln workers`), and a shell would have all that its user can reach";
            Err(Error::Refused(words.to_owned()))
        } else {
            unconfined::run(&self.shared, scratch, job, output, cancel).await
        }
    }
}

#[async_trait::async_trait]
impl Executor for Sandbox {
    async fn run(
        &self,
        job: Job,
        output: mpsc::Sender<Chunk>,
        cancel: CancellationToken,
    ) -> Result<Finished, executor::Error> {
        Sandbox::run(self, job, output, cancel).await.map_err(|error| match error {
            Error::Cancelled => executor::Error::Cancelled,
            Error::Refused(words) => executor::Error::Action(words),
            error => executor::Error::Worker(error.to_string()),
        })
    }

    fn hidden(&self) -> &[Zeroizing<String>] {
        Sandbox::hidden(self)
    }

    fn has_own_networks(&self) -> bool {
        Sandbox::has_own_networks(self)
    }
}

impl Shared {
    /// Tries out networks and roots, at the same time where there are ids for both: a command may be waiting for its worker.
    fn try_out(
        &self,
        found: Result<Vec<network::Networks>, String>,
    ) -> (Result<network::Networks, String>, Result<Roots, String>) {
        let networks = || found.and_then(|found| trial::best_network(self, found));
        let roots = || match &self.why_not {
            None => rooted::best(&self.config, &self.ids),
            Some(why) => Err(format!("the sandbox is off: {why}")),
        };
        if !self.ids.as_ref().is_ok_and(ids::Ids::are_several) {
            return (networks(), roots());
        }
        std::thread::scope(|scope| {
            let roots = scope.spawn(roots);
            (networks(), roots.join().unwrap_or_else(|_| Err("the trial panicked".to_owned())))
        })
    }

    fn can_keep(&self) -> bool {
        let Ok(ids) = &self.ids else { return false };
        let tried = trial::kept(&self.config, &self.host, ids);
        tried
            .inspect_err(|reason| tracing::warn!(reason, "each action gets a sandbox of its own, which takes longer"))
            .is_ok()
    }

    /// Whether another job could have ids at once.
    fn has_ids_left(&self) -> bool {
        self.ids.as_ref().is_ok_and(ids::Ids::are_left)
    }

    fn environment(&self, job: &Job, path: String, home: &str) -> BTreeMap<String, String> {
        let mut environment = job.environment.clone();
        Job::add_defaults(&mut environment, &path, home);
        if let (Some(offer), Some(path)) = (&job.calls.offer, environment.get_mut("PATH")) {
            *path = format!("{}:{path}", offer.programs.display());
        }
        if job.network {
            for (name, value) in &self.host.network_environment {
                environment.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        environment
    }
}
