//! The one place that knows how a coordinator and a worker are started inside this binary.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

pub use kiln_coordinator::config::{age, bytes};
pub use kiln_worker::time;
use tokio::net::TcpListener;

/// Bytes of blobs that a farm on this machine keeps.
const STORE_BYTES: u64 = 20 << 30;
/// Bytes of inputs that a worker on this machine keeps.
const CACHE_BYTES: u64 = 10 << 30;

/// Where a worker started this process as the first one of a sandbox, becomes that and does not return.
pub fn become_init_if_asked() {
    kiln_worker::become_init_if_asked();
}

/// Where a coordinator on this machine keeps what is cached, and how much; none is the default.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// A Redis that it shares with others.
    pub redis: Option<String>,
    /// A bucket that it shares with others.
    pub s3: Option<String>,
    /// Bytes of blobs on its own disk.
    pub store_bytes: Option<u64>,
    /// How often old ones are looked for.
    pub collect_every: Option<Duration>,
}

/// Runs a coordinator until `shutdown`.
pub async fn coordinator(
    data_dir: PathBuf,
    cache: Cache,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let listen = listener.local_addr().map_err(|error| error.to_string())?;
    let mut config = kiln_coordinator::Config::on_disk(listen, data_dir, cache.store_bytes.unwrap_or(STORE_BYTES));
    (config.redis, config.s3) = (cache.redis, cache.s3);
    config.collect_every = cache.collect_every.unwrap_or(config.collect_every);
    kiln_coordinator::run(config, listener, shutdown).await.map_err(|error| format!("coordinator: {error:#}"))
}

/// Runs a worker until `shutdown`.
pub async fn worker(
    coordinator: String,
    name: String,
    state_dir: PathBuf,
    root: Option<PathBuf>,
    grace: Option<Duration>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let config = kiln_worker::Config {
        root,
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
        grace: grace.unwrap_or(kiln_worker::DEFAULT_GRACE),
    };
    kiln_worker::run(config, shutdown).await.map_err(|error| format!("worker: {error:#}"))
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
