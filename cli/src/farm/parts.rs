//! The only module that knows how a coordinator and a worker are started inside this program.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use futures::{Stream, StreamExt};
use kiln_auth::Accepted;
use kiln_builds::Unfinished;
use kiln_images::registry::Pattern;
use kiln_units::Bound;
use tokio::net::{TcpListener, UnixStream};

use super::variables::Variables;

/// Maximum size of the input caches of all workers of a farm on this machine.
const CACHE_BYTES: u64 = 10 << 30;
/// The caches also use at most one part in this many of the free disk space.
const CACHE_PART: u64 = 10;

/// If a worker started this process as the first one of a sandbox, becomes that and never returns.
pub fn become_init_if_asked() {
    kiln_worker::become_init_if_asked();
}

/// Runs a coordinator until `shutdown`.
pub async fn coordinator(
    config: kiln_coordinator::Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    kiln_coordinator::run(config, listener, shutdown).await.map_err(|error| format!("{error:#}"))
}

/// Runs a coordinator for the connections from `incoming`, which are all admitted, until `shutdown`.
pub async fn coordinator_on(
    config: kiln_coordinator::Config,
    incoming: impl Stream<Item = std::io::Result<UnixStream>> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let incoming = incoming.map(|stream| stream.map(|stream| Accepted::plain(stream, None)));
    kiln_coordinator::run_on(config, incoming, shutdown).await.map_err(|error| format!("{error:#}"))
}

/// Runs a worker until `shutdown`.
pub async fn worker(
    config: kiln_worker::Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    kiln_worker::run(config, shutdown).await.map_err(|error| format!("{error:#}"))
}

/// A coordinator inside a command.
pub fn own_coordinator(data_dir: PathBuf, store: Bound) -> kiln_coordinator::Config {
    // It is given its connections and listens nowhere.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = kiln_coordinator::Config::on_disk(nowhere, data_dir, store);
    // The user sees how a build ends.
    config.notify.is_off = true;
    // Whoever followed a build that an earlier command left unfinished is gone. Artifacts were downloaded to where the
    // user wanted them, so the store need not keep them forever.
    kiln_coordinator::Config {
        unfinished: Unfinished::Interrupt,
        artifact_bytes: Some(store),
        // Its only builder is the user, who can reach these registries anyway, with these credentials.
        allowed_registries: Pattern::local(),
        own_credentials: true,
        ..config
    }
}

/// What this machine has and lacks for the worker of a farm inside a command.
pub fn machine() -> Result<Vec<kiln_proto::v1::Check>, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let variables = Variables::read().map_err(|error| words(&error))?;
    let dir = crate::local::cache_dir().map_err(|error| words(&error))?.join("farm").join("worker");
    let config = own_worker(String::new(), "here".to_owned(), dir, variables);
    kiln_worker::machine(&config).map_err(|error| format!("{error:#}"))
}

/// The input cache limit of each of `workers` workers with caches below `dir`.
pub fn cache_bytes(dir: &Path, workers: u64) -> u64 {
    // A directory that does not exist yet will be on its parent's disk.
    let free = dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok());
    let free = free.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    (free / CACHE_PART).min(CACHE_BYTES) / workers.max(1)
}

/// A worker inside a command, for the coordinator at this URL.
pub(super) fn own_worker(
    coordinator: String,
    name: String,
    state_dir: PathBuf,
    variables: Variables,
) -> kiln_worker::Config {
    let cache_bytes = cache_bytes(&state_dir, 1);
    kiln_worker::Config {
        tenants: Vec::new(),
        root: None,
        access: kiln_proto::channel::Access::default(),
        join: None,
        join_file: None,
        coordinator,
        name,
        state_dir,
        sandbox: variables.sandbox,
        // Whoever builds here is that user.
        own_credentials: true,
        sub_ids: variables.sub_ids,
        no_ids: None,
        network_isolation: variables.network_isolation,
        docker: variables.docker,
        docker_host: variables.docker_host,
        docker_network: variables.docker_network,
        cpus: None,
        memory: None,
        labels: Vec::new(),
        cache_bytes,
        root_cache_bytes: cache_bytes,
        root_mounts: None,
        root_layout: None,
        allow_host_network: false,
        trust_host_ca: false,
        verify_calls: variables.verify_calls,
        metrics_listen: None,
        grace: kiln_worker::DEFAULT_GRACE,
    }
}

/// Does what a part of a farm must do before its process has any thread.
///
/// # Errors
/// If the process that it belongs to has ended.
pub fn prepared(mut cli: crate::args::Cli) -> Result<crate::args::Cli, crate::Error> {
    if let crate::args::Command::Worker(worker) = &mut cli.command {
        worker.config.take_ids();
    }
    if let Some(parent) = cli.command.parent() {
        die_with(parent)?;
    }
    Ok(cli)
}

/// Asks the kernel to kill this process when its parent ends. Must be called before any thread is started.
fn die_with(parent: u32) -> Result<(), crate::Error> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| crate::Error::Runtime { source: error.into() })?;
    // The parent may have ended before the request.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) {
        Ok(())
    } else {
        Err(crate::Error::Usage(format!("process {parent}, which this one belongs to, has ended")))
    }
}
