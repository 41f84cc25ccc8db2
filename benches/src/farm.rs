//! A farm of real processes on this machine: a coordinator and workers, stopped at the end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kiln_proto::v1::StatusRequest;
use kiln_proto::v1::farm_client::FarmClient;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Process;

/// How long a process may take until it is there, or has stopped.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// A running farm; it ends when this is dropped.
#[derive(Debug)]
pub struct Farm {
    /// Where it listens.
    pub url: String,
    // Workers stop before the coordinator does.
    workers: Vec<Part>,
    coordinator: Part,
    data: tempfile::TempDir,
}

/// One of the farm's processes.
#[derive(Debug)]
struct Part {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Farm {
    /// Starts a farm of the binaries beside this program; `arguments` are further ones for the coordinator.
    ///
    /// # Errors
    /// Where a process cannot be started or ends at once, with what it said.
    pub async fn start(workers: u32, arguments: &[String]) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let mut command = Command::new(binary("kiln-coordinator")?);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(data.path().join("coordinator"));
        let coordinator = Part::start("coordinator", command.args(arguments), data.path())?;
        let mut farm = Self { url, workers: Vec::new(), coordinator, data };
        farm.wait_for(None).await?;
        for number in 1..=workers {
            farm.add_worker(&format!("worker-{number}"), &[]).await?;
        }
        Ok(farm)
    }

    /// Starts a worker with an empty cache and waits until the coordinator has it.
    ///
    /// # Errors
    /// Where it ends at once, with what it said.
    pub async fn add_worker(&mut self, name: &str, arguments: &[String]) -> anyhow::Result<()> {
        let mut command = Command::new(binary("kiln-worker")?);
        command.args(["--coordinator", &self.url, "--name", name, "--state-dir"]).arg(self.data.path().join(name));
        self.workers.push(Part::start(name, command.args(arguments), self.data.path())?);
        self.wait_for(Some(name)).await
    }

    /// Stops all workers.
    pub fn stop_workers(&mut self) {
        self.workers.clear();
    }

    /// The coordinator's process.
    pub fn coordinator(&self) -> anyhow::Result<Process> {
        Process::new(self.coordinator.child.id())
    }

    /// Returns once the coordinator answers and has this worker.
    async fn wait_for(&mut self, worker: Option<&str>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(channel) = kiln_proto::channel::connect(&self.url, &Default::default()).await
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
            if began.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for the farm at `{}` to be ready", self.url);
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

    /// An error where the process has ended.
    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{} ended ({status}); it said:\n{said}", self.name);
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
            while began.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(PAUSE);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A binary that was built with this program.
///
/// # Errors
/// Where it is not there.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("expected `{}`; build it with `cargo build --release`", path.display());
    }
    Ok(path)
}
