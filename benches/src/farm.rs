//! A farm of real processes on this machine: a coordinator and workers, which are stopped at the end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kiln_proto::channel::{self, Access, Channel};
use kiln_proto::v1::StatusRequest;
use kiln_proto::v1::farm_client::FarmClient;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Process;

/// Limit for a process to become ready, or to stop.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Options of a farm.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Additional arguments for the coordinator.
    pub arguments: Vec<String>,
    /// Additional environment variables of its processes.
    pub variables: Vec<(String, String)>,
    /// Whether it uses TLS with client certificates of its own authority.
    pub tls: bool,
}

/// A running farm; stopped on drop.
#[derive(Debug)]
pub struct Farm {
    /// Its URL.
    pub url: String,
    /// Its clients' credentials.
    pub access: Access,
    setup: Setup,
    join: Option<String>,
    // Dropped before the coordinator, so that workers stop first.
    workers: Vec<Part>,
    coordinator: Part,
    data: tempfile::TempDir,
}

/// A process of the farm.
#[derive(Debug)]
struct Part {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Farm {
    /// Starts a farm with the binaries next to this program.
    ///
    /// # Errors
    /// If a process cannot be started or exits immediately, with its output.
    pub async fn start(workers: u32, setup: Setup) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(binary("kiln-coordinator")?);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(data.path().join("coordinator"));
        // Clients of other farms do not know this one's token.
        command.env("KILN_INSECURE", "true");
        let (mut access, mut join) = (Access::default(), None);
        if setup.tls {
            let identity = data.path().join("identity");
            let said = kiln(&["farm", "init", text(&identity)?, "--host", "127.0.0.1"])?;
            join = said.split_whitespace().find(|word| word.starts_with("kiln-join.")).map(str::to_owned);
            command.arg("--farm-dir").arg(&identity);
            access = certificate(&identity, "bench", &["builder", "admin"])?;
        }
        command.args(&setup.arguments).envs(setup.variables.iter().cloned());
        let coordinator = Part::start("coordinator", &mut command, data.path())?;
        let scheme = if setup.tls { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}");
        let mut farm = Self { url, access, setup, join, workers: Vec::new(), coordinator, data };
        farm.wait_for(None).await?;
        for number in 1..=workers {
            farm.add_worker(&format!("worker-{number}"), &[]).await?;
        }
        Ok(farm)
    }

    /// Starts a worker with an empty cache and waits until it is registered.
    ///
    /// # Errors
    /// If it exits immediately, with its output.
    pub async fn add_worker(&mut self, name: &str, arguments: &[String]) -> anyhow::Result<()> {
        let mut command = Command::new(binary("kiln-worker")?);
        command.args(["--coordinator", &self.url, "--name", name, "--state-dir"]).arg(self.data.path().join(name));
        if let Some(token) = &self.join {
            command.args(["--join", token]);
        }
        command.args(arguments).envs(self.setup.variables.iter().cloned());
        self.workers.push(Part::start(name, &mut command, self.data.path())?);
        self.wait_for(Some(name)).await
    }

    /// Credentials with only this role; empty if the farm requires no authentication.
    ///
    /// # Errors
    /// If the certificate cannot be created.
    pub fn member(&self, name: &str, role: &str) -> anyhow::Result<Access> {
        if self.setup.tls {
            certificate(&self.data.path().join("identity"), name, &[role])
        } else {
            Ok(Access::default())
        }
    }

    /// Connects with all permissions.
    ///
    /// # Errors
    /// If the coordinator does not respond.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        Ok(channel::connect(&self.url, &self.access).await?)
    }

    /// Stops all workers.
    pub fn stop_workers(&mut self) {
        self.workers.clear();
    }

    /// The coordinator's process.
    pub fn coordinator(&self) -> anyhow::Result<Process> {
        Process::new(self.coordinator.child.id())
    }

    /// Returns once the coordinator responds and has this worker.
    async fn wait_for(&mut self, worker: Option<&str>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(channel) = self.connect().await
                && let Ok(status) = FarmClient::new(channel).status(StatusRequest {}).await
            {
                let there = &status.get_ref().workers;
                if worker.is_none_or(|name| there.iter().any(|worker| worker.worker == name && worker.connected)) {
                    return Ok(());
                }
            }
            for part in self.workers.iter_mut().chain([&mut self.coordinator]) {
                part.check()?;
            }
            if began.elapsed() > READY_TIMEOUT {
                bail!("waited {READY_TIMEOUT:?} for the farm at `{}` to be ready", self.url);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Part {
    fn start(name: &str, command: &mut Command, directory: &Path) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Fails if the process has ended.
    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{} ended ({status}); its output:\n{said}", self.name);
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let began = Instant::now();
        if let Some(pid) = pid
            && let Ok(None) = self.child.try_wait()
        {
            let _ = kill_process(pid, Signal::TERM);
            while began.elapsed() < READY_TIMEOUT && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(PAUSE);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This path as text for a command line.
pub(crate) fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("`{}` is not valid UTF-8", path.display()))
}

/// Runs `kiln` and returns its output.
fn kiln(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(binary("kiln")?).args(arguments).output()?;
    if !output.status.success() {
        bail!("`kiln {}` failed:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn certificate(identity: &Path, name: &str, roles: &[&str]) -> anyhow::Result<Access> {
    let directory = text(identity)?;
    let mut arguments = vec!["farm", "certificate", name, "--farm-dir", directory, "--output", directory];
    roles.iter().for_each(|role| arguments.extend(["--role", role]));
    kiln(&arguments)?;
    Ok(Access {
        ca: Some(identity.join("ca.pem")),
        cert: Some(identity.join(format!("{name}.pem"))),
        key: Some(identity.join(format!("{name}.key"))),
        token_file: None,
    })
}

/// The path of a binary built together with this program.
///
/// # Errors
/// If it does not exist.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("expected `{}`; build it with `cargo build --release`", path.display());
    }
    Ok(path)
}
