//! The one place that knows how a coordinator and a worker are started inside this binary.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

/// Bytes of blobs that a farm on this machine keeps.
const STORE_BYTES: u64 = 20 << 30;
/// Bytes of inputs that a worker on this machine keeps.
const CACHE_BYTES: u64 = 10 << 30;

/// Where a worker started this process as the first one of a sandbox, becomes that and does not return.
pub fn become_init_if_asked() {
    kiln_worker::become_init_if_asked();
}

/// Runs a coordinator until `shutdown`.
pub async fn coordinator(
    config: kiln_coordinator::Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    kiln_coordinator::run(config, listener, shutdown).await.map_err(|error| format!("coordinator: {error:#}"))
}

/// Runs a worker until `shutdown`.
pub async fn worker(
    config: kiln_worker::Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    kiln_worker::run(config, shutdown).await.map_err(|error| format!("worker: {error:#}"))
}

/// A coordinator inside a command.
pub fn own_coordinator(listen: SocketAddr, data_dir: PathBuf) -> kiln_coordinator::Config {
    kiln_coordinator::Config::on_disk(listen, data_dir, STORE_BYTES)
}

/// A worker inside a command, for the coordinator at this URL.
pub fn own_worker(coordinator: String, name: String, state_dir: PathBuf) -> kiln_worker::Config {
    kiln_worker::Config {
        root: None,
        access: kiln_proto::channel::Access::default(),
        join: None,
        coordinator,
        name,
        state_dir,
        sandbox: kiln_worker::sandbox::Mode::Auto,
        docker: kiln_worker::docker::Mode::Auto,
        docker_host: std::env::var("DOCKER_HOST").unwrap_or_else(|_| kiln_worker::docker::DEFAULT_HOST.to_owned()),
        docker_network: std::env::var("KILN_DOCKER_NETWORK").unwrap_or_else(|_| "bridge".to_owned()),
        cpus: None,
        memory: None,
        labels: Vec::new(),
        cache_bytes: CACHE_BYTES,
        metrics_listen: None,
        grace: kiln_worker::DEFAULT_GRACE,
    }
}

/// Asks the kernel to end this process when its parent does. To be called before any thread is started.
pub fn die_with(parent: u32) -> Result<(), crate::Error> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| crate::Error::Runtime { source: error.into() })?;
    // The parent may have ended before the kernel was asked.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) {
        Ok(())
    } else {
        Err(crate::Error::Usage(format!("process {parent}, which this one belongs to, has ended")))
    }
}
