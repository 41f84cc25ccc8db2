//! Docker: one action in a container of the image that it names, by a Docker Engine on the worker's own machine.
//!
//! A container's first process is this worker's own program, and takes the tasks from the worker over a socket; so many small
//! actions of one tenant in one image share a container, one after the other, each with its own mounts. Where the worker cannot
//! mount for containers, each action has a container of its own and a copy of its inputs.
//!
//! Invariant: an action sees the image, its inputs at [`BUILD`](kiln_executor::BUILD), an empty `/tmp` and its own processes; it
//! has no privileges and is not root; nothing that it leaves meets another action. Containers carry the id of the worker's state
//! directory, and what a killed worker leaves is removed when it starts again.

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

/// User and group that an action has in a container whose worker is root.
const USER: u32 = 1000;
const GROUP: u32 = 1000;
/// How often containers that nobody wants are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Whether a worker offers Docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// If an engine answers.
    Auto,
    /// Never.
    Off,
    /// Always; the worker does not start without an engine.
    Required,
}

/// What Docker needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the engine.
    pub host: String,
    /// The engine's network for steps with `network = true`.
    pub network: String,
    /// The worker's name, for people who look at containers.
    pub worker: String,
    /// The worker's state directory. Inputs lie below it.
    pub state: PathBuf,
    /// What registries are shown for those who bring nothing of their own.
    pub credentials: Own,
    /// The program that becomes a container's init; by default this process's own executable.
    pub init: Option<PathBuf>,
}

/// Credentials of the worker itself, which are every tenant's where there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// It has none: each tenant has the farm's.
    None,
    /// Those of its user.
    User,
    /// Those of one `config.json` of Docker's.
    File(PathBuf),
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    images: Images,
    setting: Setting,
    mounts: Result<Mounts, String>,
    /// Mounts reach the containers, as far as is known.
    mounts_arrive: AtomicBool,
    jobs: PathBuf,
    containers: AtomicU64,
}

/// Runs commands in containers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    shared: Arc<Shared>,
}

/// Where this process was started to serve a container, it does that and does not return.
pub fn become_init_if_asked() {
    init::become_init_if_asked();
}

impl Docker {
    /// Connects to the engine, and removes what an earlier run left: containers, mounts, directories.
    ///
    /// # Errors
    /// Where there is no engine, or it cannot be used.
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

    /// What it is and how it is used, in words.
    pub fn describe(&self) -> String {
        let engine = self.shared.setting.engine.describe();
        match &self.shared.mounts {
            Ok(_) => engine,
            Err(why) => format!("{engine}, a container and a copy of the inputs for each action: {why}"),
        }
    }

    /// Whether its engine answers now.
    pub async fn answers(&self) -> bool {
        self.shared.setting.engine.answers().await
    }

    /// The architectures that it runs natively, as images name them.
    pub fn architecture(&self) -> &str {
        &self.shared.setting.engine.architecture
    }

    /// What answers the digests of images.
    pub fn resolver(&self) -> Resolver {
        Resolver { shared: self.shared.clone() }
    }

    /// Removes the containers that wait. The others go when their actions end.
    pub async fn close(&self) {
        futures::future::join_all(self.shared.pool.drain().iter().map(container::Container::end)).await;
    }
}

impl Shared {
    fn name(&self) -> String {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        format!("kiln-{}-{}-{number}", self.setting.state, std::process::id())
    }

    /// The mounts, where they can be had and reach the containers.
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
        None => std::env::current_exe().map_err(|error| format!("cannot find this program itself: {error}"))?,
    };
    let files = Files::gather(directory.join("init"), &program)?;
    Ok((files, Mounts::open(directory, &config.state, &program)))
}

/// The id of a state directory: made once, and kept in it.
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
