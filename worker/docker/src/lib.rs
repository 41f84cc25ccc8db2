//! Docker: runs an action in a container of the image that it names, with a Docker Engine on the worker's own machine.
//!
//! A container's first process is this worker's own program, which receives tasks from the worker over a socket. So
//! many small actions of one tenant in one image share a container, one after another, each with its own mounts. If the
//! worker cannot mount for containers, each action gets its own container and a copy of its inputs.
//!
//! Invariant: an action sees the image, its inputs at [`BUILD`](kiln_executor::BUILD), an empty `/tmp` and its own
//! processes; it has no privileges and is not root; nothing that it leaves reaches another action. Containers are
//! labelled with the id of the worker's state directory, and a restarted worker removes what a killed one left.

mod blame;
mod container;
mod credentials;
mod engine;
mod files;
mod images;
mod init;
mod leftovers;
mod mounts;
mod offer;
mod pool;
mod progress;
mod pulled;
mod request;
mod resolver;
mod run;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use engine::Engine;
pub use engine::{DEFAULT_HOST, Error};
use files::Files;
use images::Images;
use mounts::Mounts;
pub use offer::{Offer, Offered};
use pool::Pool;
use pulled::Pulled;
use request::Setting;
pub use resolver::Resolver;

use kiln_executor::scratch;
use kiln_kernel::userns;

/// User and group of an action in a container if the worker is root.
const USER: u32 = 1000;
const GROUP: u32 = 1000;
/// How often to look for unused containers.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Whether a worker offers Docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// If an engine responds.
    Auto,
    /// Never.
    Off,
    /// Always; the worker does not start without an engine.
    Required,
}

/// Configuration of the Docker executor.
#[derive(Debug, Clone)]
pub struct Config {
    /// The engine's address.
    pub host: String,
    /// The engine's network for steps with `network = true`.
    pub network: String,
    /// The worker's name, for people who inspect containers.
    pub worker: String,
    /// The worker's state directory, which contains the inputs.
    pub state: PathBuf,
    /// The worker's own registry credentials.
    pub credentials: Own,
    /// The program that becomes a container's init; defaults to this process's executable.
    pub init: Option<PathBuf>,
}

/// The worker's own registry credentials, used for every tenant if there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// None: each tenant uses the farm's credentials for it.
    None,
    /// Those of the worker's user.
    User,
    /// Those in a Docker `config.json`.
    File(PathBuf),
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    images: Images,
    setting: Setting,
    mounts: Result<Mounts, String>,
    /// Whether mounts reach the containers, as far as is known.
    mounts_arrive: AtomicBool,
    jobs: PathBuf,
    containers: AtomicU64,
}

/// Runs commands in containers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    shared: Arc<Shared>,
}

/// If this process was started as a container's init, does that work and never returns.
pub fn become_init_if_asked() {
    init::become_init_if_asked();
}

impl Docker {
    /// Connects to the engine, and removes the containers, mounts and directories that an earlier run left.
    ///
    /// # Errors
    /// If there is no engine, or it cannot be used.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let engine = Engine::connect(&config.host).await?;
        let directory = config.state.join("docker");
        let setup = |error: std::io::Error| Error::Setup(format!("cannot use `{}`: {error}", directory.display()));
        std::fs::create_dir_all(&directory).map_err(setup)?;
        let state = state_id(&directory).map_err(setup)?;
        let swept = engine.sweep(&state).await;
        swept.map_err(|error| Error::Setup(format!("cannot remove old containers: {}", engine::words(&error))))?;
        let prepared = {
            let (config, directory) = (config.clone(), directory.clone());
            tokio::task::spawn_blocking(move || prepare(&config, &directory)).await
        };
        let (files, mounts) = prepared.map_err(|error| Error::Setup(error.to_string()))?.map_err(Error::Setup)?;
        let user = if userns::is_machine_root() { (USER, GROUP) } else { userns::on_machine() };
        let shared = Arc::new(Shared {
            pool: Pool::default(),
            images: Images::new(engine.clone(), config.credentials, Pulled::open(&directory)),
            setting: Setting {
                engine,
                files,
                doors: directory.join("doors"),
                worker: config.worker,
                state,
                network: config.network,
                user,
            },
            mounts,
            mounts_arrive: AtomicBool::new(true),
            jobs: directory.join("jobs"),
            containers: AtomicU64::new(0),
        });
        let waiting = Arc::downgrade(&shared);
        tokio::spawn(async move {
            loop {
                match waiting.upgrade() {
                    Some(shared) => {
                        shared.pool.sweep();
                        shared.images.sweep().await;
                    }
                    None => return,
                }
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        });
        Ok(Self { shared })
    }

    /// Describes the engine and how it is used.
    pub fn describe(&self) -> String {
        let engine = self.shared.setting.engine.describe();
        match &self.shared.mounts {
            Ok(_) => engine,
            Err(why) => format!("{engine}, a container and a copy of the inputs for each action: {why}"),
        }
    }

    /// Whether the engine currently responds.
    pub async fn answers(&self) -> bool {
        self.shared.setting.engine.answers().await
    }

    /// The engine's native architecture, in the notation of images.
    pub fn architecture(&self) -> &str {
        &self.shared.setting.engine.architecture
    }

    /// Resolves image names to digests.
    pub fn resolver(&self) -> Resolver {
        Resolver { shared: self.shared.clone() }
    }

    /// Removes idle containers. The others are removed when their actions end.
    pub async fn close(&self) {
        futures::future::join_all(self.shared.pool.drain().iter().map(container::Container::end)).await;
    }
}

impl Shared {
    fn name(&self) -> String {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        format!("kiln-{}-{}-{number}", self.setting.state, std::process::id())
    }

    /// The mounts, if this worker can create them and they reach containers.
    fn mounts(&self) -> Option<&Mounts> {
        self.mounts.as_ref().ok().filter(|_| self.mounts_arrive.load(Ordering::Relaxed))
    }
}

fn prepare(config: &Config, directory: &Path) -> Result<(Files, Result<Mounts, String>), String> {
    mounts::sweep(directory);
    let failed = |error: std::io::Error| format!("cannot use `{}`: {error}", directory.display());
    scratch::sweep(&directory.join("jobs")).map_err(failed)?;
    for name in ["doors", "slots"] {
        let path = directory.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(failed)?;
        }
        std::fs::create_dir_all(&path).map_err(failed)?;
    }
    let program = match &config.init {
        Some(program) => program.clone(),
        None => {
            std::env::current_exe().map_err(|error| format!("cannot find this program's own executable: {error}"))?
        }
    };
    let files = Files::gather(directory.join("init"), &program)?;
    Ok((files, Mounts::open(directory, &config.state, &program)))
}

/// The id of a state directory, created once and stored in it.
fn state_id(directory: &Path) -> std::io::Result<String> {
    let path = directory.join("id");
    match std::fs::read_to_string(&path) {
        Ok(id) if id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(id),
        _ => {
            let id = format!("{:016x}", rand::random::<u64>());
            std::fs::write(&path, &id)?;
            Ok(id)
        }
    }
}
