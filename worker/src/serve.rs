//! The worker's process: probes the machine, opens the cache, and maintains the connection until it is told to stop.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use kiln_broker::Broker;
use kiln_proto::channel::{self, Dial};
use kiln_proto::{calls, property, v1};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::executors::Executors;
use crate::inputs::{self, Inputs};
use crate::link::{self, Identity};
use crate::membership::Membership;
use crate::metrics::Metrics;
use crate::probe;
use crate::roots::{self, Roots};
use crate::runner::Runner;
use kiln_docker::{self as docker, Offer, Offered};
use kiln_sandbox::{self as sandbox, Sandbox, Tools};

/// Works for a coordinator until `shutdown`, then finishes running leases within the configured grace and leaves.
///
/// # Errors
/// If the state directory cannot be used, or a required sandbox is impossible.
pub fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> BoxFuture<'static, anyhow::Result<()>> {
    let (_, never) = watch::channel(Arc::new(config.clone()));
    boxed(config, Box::pin(shutdown), never)
}

/// The same, with configurations that replace this one as far as that is possible while the worker runs ([`RELOADED`]).
///
/// # Errors
/// As [`run`].
pub fn run_reloading(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
    reloads: watch::Receiver<Arc<Config>>,
) -> BoxFuture<'static, anyhow::Result<()>> {
    boxed(config, Box::pin(shutdown), reloads)
}

/// Options of the worker that a reload applies.
pub const RELOADED: [&str; 5] = ["log", "label", "tenant", "cpus", "memory"];

// Callers do not compile the worker once more: its type ends here.
fn boxed(
    config: Config,
    shutdown: BoxFuture<'static, ()>,
    reloads: watch::Receiver<Arc<Config>>,
) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(work(config, shutdown, reloads))
}

async fn work(
    config: Config,
    shutdown: BoxFuture<'static, ()>,
    reloads: watch::Receiver<Arc<Config>>,
) -> anyhow::Result<()> {
    channel::check(&config.coordinator, &channel::Access::default())?;
    let state = std::path::absolute(&config.state_dir)?;
    std::fs::create_dir_all(&state)
        .with_context(|| format!("cannot create the state directory `{}`", state.display()))?;
    close(&state)?;
    let _lock = lock(&state)?;
    let metrics = match config.metrics_listen {
        Some(address) => Some(Metrics::bind(address).await?),
        None => None,
    };
    let logs = state.join("logs");
    if logs.exists() {
        std::fs::remove_dir_all(&logs).context("cannot remove the logs of an earlier run")?;
    }
    std::fs::create_dir_all(&logs)?;
    let opening = config.clone();
    let root = state.clone();
    let opened = tokio::task::spawn_blocking(move || open(&opening, &root)).await??;
    let (sandbox, inputs, roots) = opened;
    let options = probe::Options {
        labels: config.labels.iter().cloned().collect(),
        path: sandbox.host_path(),
        cache: Some(state.clone()),
    };
    let stamp = probe::stamp(config.root.as_deref().unwrap_or(Path::new("/")));
    let environment = look(&sandbox, config.root.as_deref(), &options).await?;
    let docker = Offer::open(config.docker, docker_config(&config, &state)).await?;
    if sandbox.is_confined() {
        tracing::info!(sandbox = sandbox.describe(), "actions run in a sandbox");
    } else {
        tracing::error!(sandbox = sandbox.describe(), "NO SANDBOX");
    }
    let identity = Identity {
        name: config.name.clone(),
        environment,
        capacity: probe::capacity(config.cpus, config.memory),
        session: rand::random::<[u8; 16]>().to_vec(),
        tenants: config.tenants.clone(),
    };
    let system = Installed {
        sandbox: sandbox.clone(),
        root: config.root.clone(),
        options,
        stamp,
        requires_docker: config.docker == docker::Mode::Required,
    };
    let identity = with_changes(identity, docker.offered(), system, reloads);
    let executors = Arc::new(Executors::new(sandbox.clone(), docker.clone()));
    let broker = match splits(&sandbox, config.root.as_deref()) {
        true => Some(
            Broker::open(
                &state.join("calls"),
                &sandbox.host_path(),
                executors.clone(),
                inputs.clone(),
                config.verify_calls,
            )
            .context("cannot prepare for compiler calls")?,
        ),
        false => None,
    };
    let runner =
        Arc::new(Runner::new(config.name.clone(), inputs, executors, logs).with_roots(roots).with_broker(broker));
    let stop = CancellationToken::new();
    if let Some(metrics) = metrics {
        metrics.serve(runner.clone(), config.cache_bytes, stop.clone())?;
    }
    let stopping = stop.clone();
    tokio::spawn(async move {
        shutdown.await;
        stopping.cancel();
    });
    let token = config.join_token().context("cannot read the file with the join token (`--join-file`)")?;
    let membership = Membership::open(&state, &config.coordinator, &config.name, token.as_deref(), &stop).await?;
    let access = match membership {
        Some(membership) => {
            let access = membership.access();
            tokio::spawn(membership.renew(stop.clone()));
            access
        }
        None => config.access.clone(),
    };
    tokio::spawn(docker.clone().watch(stop.clone()));
    // Workers spread themselves over the coordinators.
    let first = config.name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let dial = Dial::new(&config.coordinator, access).beginning_with(first);
    let kept = link::keep(&dial, identity, runner.clone(), stop, config.grace).await;
    let closed = tokio::task::spawn_blocking(move || runner.close()).await;
    closed.context("cannot close the input cache")?;
    if let Some(docker) = docker.docker() {
        docker.close().await;
    }
    Ok(kept?)
}

fn docker_config(config: &Config, state: &Path) -> docker::Config {
    docker::Config {
        host: config.docker_host.clone(),
        network: config.docker_network.clone(),
        worker: config.name.clone(),
        state: state.to_owned(),
        credentials: if config.own_credentials { docker::Own::User } else { docker::Own::None },
        init: None,
    }
}

/// Whether steps are split into their compiler calls.
fn splits(sandbox: &Sandbox, root: Option<&Path>) -> bool {
    sandbox.is_confined() && root.is_none()
}

/// Probes the machine, or the root that actions run on.
async fn look(sandbox: &Sandbox, root: Option<&Path>, options: &probe::Options) -> anyhow::Result<v1::Environment> {
    let mut environment = match root {
        Some(root) => probe::probe_root(sandbox, root, options).await?,
        None => {
            let options = options.clone();
            tokio::task::spawn_blocking(move || probe::probe(&options)).await?
        }
    };
    environment.roots = match sandbox.roots() {
        Ok(roots) => roots.describe().to_owned(),
        Err(why) => format!("no: {why}"),
    };
    environment.host_network = sandbox.allows_host_network();
    environment.sandbox = sandbox.describe();
    environment.checks = probe::checks(&sandbox.findings(), options.cache.as_deref().unwrap_or(Path::new("/")));
    // Calls run as their steps do: on the machine's own system.
    environment.calls = if splits(sandbox, root) { calls::RULES } else { 0 };
    environment.path = sandbox.path();
    Ok(environment)
}

/// How often to check whether packages were installed or removed.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The system as last probed.
struct Installed {
    sandbox: Sandbox,
    root: Option<PathBuf>,
    options: probe::Options,
    stamp: String,
    requires_docker: bool,
}

impl Installed {
    /// Completes once packages have changed and then stayed unchanged for one interval; returns the new environment.
    async fn changed(&mut self) -> v1::Environment {
        let mut before = self.stamp.clone();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let root = self.root.clone().unwrap_or_else(|| PathBuf::from("/"));
            let Ok(now) = tokio::task::spawn_blocking(move || probe::stamp(&root)).await else { continue };
            let settled = now == std::mem::replace(&mut before, now.clone());
            if !settled || now == self.stamp {
                continue;
            }
            match look(&self.sandbox, self.root.as_deref(), &self.options).await {
                Ok(environment) => {
                    self.stamp = now;
                    return environment;
                }
                Err(error) => tracing::warn!("cannot probe the system after its packages changed: {error:#}"),
            }
        }
    }
}

/// The worker's identity, updated as what it offers and what is installed changes.
fn with_changes(
    bare: Identity,
    mut offered: watch::Receiver<Offered>,
    mut system: Installed,
    mut reloads: watch::Receiver<Arc<Config>>,
) -> watch::Receiver<Identity> {
    let has_roots = system.sandbox.roots().is_ok();
    let requires_docker = system.requires_docker;
    let of = move |mut identity: Identity, offered: &Offered| {
        let environment = &mut identity.environment;
        let engine = offered.as_ref().map(String::as_str).map_err(String::as_str);
        environment.checks.push(probe::docker(engine, requires_docker));
        environment.executors = vec![property::SANDBOX.to_owned()];
        if has_roots {
            environment.executors.push(property::IN_ROOT.to_owned());
        }
        match offered {
            Ok(docker) => {
                tracing::info!(docker, "actions may run in containers");
                environment.docker.clone_from(docker);
                environment.executors.extend([property::DOCKER, property::IMAGE_RESOLVER].map(str::to_owned));
            }
            Err(why) => tracing::info!(why, "no action can run in containers"),
        }
        identity
    };
    let (sender, receiver) = watch::channel(of(bare.clone(), &offered.borrow_and_update()));
    let mut bare = bare;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                changed = offered.changed() => if changed.is_err() { return },
                environment = system.changed() => {
                    if environment.fingerprint == bare.environment.fingerprint {
                        continue;
                    }
                    tracing::info!(fingerprint = environment.fingerprint, "installed packages changed");
                    bare.environment = environment;
                }
                config = next(&mut reloads) => {
                    system.options.labels = config.labels.iter().cloned().collect();
                    bare.environment.labels = config.labels.iter().cloned().collect();
                    bare.capacity = probe::capacity(config.cpus, config.memory);
                    bare.tenants.clone_from(&config.tenants);
                }
                () = sender.closed() => return,
            }
            sender.send_replace(of(bare.clone(), &offered.borrow_and_update()));
        }
    });
    receiver
}

/// The next configuration; none ever, once nobody can send one.
async fn next(reloads: &mut watch::Receiver<Arc<Config>>) -> Arc<Config> {
    match reloads.changed().await {
        Ok(()) => reloads.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}

fn open(config: &Config, state: &Path) -> anyhow::Result<(Sandbox, Inputs, Option<Roots>)> {
    let sandbox = Sandbox::open(sandbox_config(config, state))?;
    let inputs = Inputs::open(inputs::Config {
        directory: state.join("inputs"),
        max_bytes: config.cache_bytes,
        owner: sandbox.owner_of_inputs(),
    })?;
    let roots = match sandbox.roots() {
        Ok(found) => {
            tracing::info!(roots = found.describe(), "actions may run in roots of their own");
            let directory = state.join("roots");
            let kept = roots::Config {
                directory,
                max_bytes: config.root_cache_bytes,
                layout: found.layout,
                on_disk: found.on_disk,
            };
            Some(Roots::open(kept, inputs.clone())?)
        }
        Err(why) => {
            tracing::info!(why, "no action can run in a root of its own");
            None
        }
    };
    Ok((sandbox, inputs, roots))
}

/// What this machine has and lacks for running actions as a worker with this configuration would. Its state directory is looked at, and
/// nothing is left in it.
///
/// # Errors
/// If nothing can be tried out here.
pub fn machine(config: &Config) -> anyhow::Result<Vec<v1::Check>> {
    let trial =
        tempfile::tempdir_in(config.state_dir.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/")))?;
    let mode = if config.sandbox == sandbox::Mode::Required { sandbox::Mode::Auto } else { config.sandbox };
    let network = if config.network_isolation == sandbox::Isolation::Required {
        sandbox::Isolation::Auto
    } else {
        config.network_isolation
    };
    let found = Sandbox::open(sandbox::Config { mode, network, ..sandbox_config(config, trial.path()) })?.findings();
    Ok(probe::checks(&found, &config.state_dir))
}

fn sandbox_config(config: &Config, state: &Path) -> sandbox::Config {
    sandbox::Config {
        mode: config.sandbox,
        scratch: state.join("sandbox"),
        // The machine's own toolchains are not part of another root.
        tools: if config.root.is_none() { Tools::discover() } else { Tools::default() },
        root: config.root.clone(),
        sub_ids: config.sub_ids,
        no_ids: config.no_ids.clone(),
        network: config.network_isolation,
        init: None,
        own_credentials: config.own_credentials,
        way: config.root_mounts,
        layout: config.root_layout,
        objects: inputs::objects(&state.join("inputs")),
        host_network: config.allow_host_network,
        host_authorities: config.trust_host_ca,
    }
}

/// The state directory holds every tenant's sources and the worker's key, so only its owner may enter it. A volume that
/// belongs to another user is that user's to protect.
fn close(state: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let is_own = std::fs::metadata(state)?.uid() == rustix::process::geteuid().as_raw();
    if is_own {
        std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot restrict access to the state directory `{}`", state.display()))?;
    }
    Ok(())
}

/// Ensures that only one worker uses a state directory.
fn lock(state: &Path) -> anyhow::Result<std::fs::File> {
    let path = state.join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        anyhow::anyhow!("another worker uses the state directory `{}`; give each its own", state.display())
    })?;
    Ok(file)
}
