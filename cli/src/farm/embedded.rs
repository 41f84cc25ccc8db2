//! A farm inside this process, with a store in the user's cache directory.
//!
//! Commands that run at the same time share one farm: the first hosts it and holds `lock`; the others are guests, and
//! each holds a share of `guests`. Invariant: the host leaves only when it holds all of `guests`, so no guest's build
//! is interrupted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_proto::channel;
use kiln_proto::channel::Channel;
use kiln_proto::v1::StatusRequest;
use kiln_proto::v1::farm_client::FarmClient;
use kiln_units::Bound;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::socket::{Place, Socket};
use super::variables::Variables;
use super::{Error, parts};

const PAUSE: Duration = Duration::from_millis(20);
/// Number of attempts while another command starts or stops its farm: 30 s in total.
const MAX_ATTEMPTS: u32 = 1500;
/// How long the farm's parts may take to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A farm on this machine of which this process is the host or a guest.
pub(super) struct Opened {
    pub(super) url: String,
    pub(super) channel: Channel,
    role: Role,
}

enum Role {
    Host(Host),
    /// The guest's share of `guests`, released on drop.
    Guest(#[allow(dead_code)] File),
}

struct Host {
    dir: PathBuf,
    /// Held while the farm is running.
    _lock: File,
    _place: Place,
    stop_worker: watch::Sender<bool>,
    stop_coordinator: watch::Sender<bool>,
    worker: JoinHandle<Result<(), String>>,
    coordinator: JoinHandle<Result<(), String>>,
}

/// Hosts a farm in `dir`, or joins the one that another process hosts there.
pub(super) async fn open(dir: &Path, store: Bound) -> Result<Opened, Error> {
    let failed = |source| Error::Directory { path: dir.to_owned(), source };
    // Read even if another command hosts the farm, so that invalid values are reported.
    let variables = Variables::read()?;
    std::fs::create_dir_all(dir).map_err(failed)?;
    for _ in 0..MAX_ATTEMPTS {
        let lock = open_lock(&dir.join("lock")).map_err(failed)?;
        if try_lock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(failed)? {
            return host(dir, lock, store, variables).await;
        }
        if let Some(opened) = join(dir).await.map_err(failed)? {
            return Ok(opened);
        }
        tokio::time::sleep(PAUSE).await;
    }
    let reason = format!(
        "another `kiln` uses `{}` and its farm does not respond; end that process and try again",
        dir.join("lock").display()
    );
    Err(Error::Embedded { reason })
}

/// Joins the farm that another process hosts; `None` if it is not running.
async fn join(dir: &Path) -> std::io::Result<Option<Opened>> {
    let share = open_lock(&dir.join("guests"))?;
    if !try_lock(&share, FlockOperation::NonBlockingLockShared)? {
        return Ok(None);
    }
    // Read while the share is held: a host that leaves removes it first.
    let Ok(url) = std::fs::read_to_string(dir.join("address")) else { return Ok(None) };
    let Ok(channel) = channel::connect(&url, &Default::default()).await else { return Ok(None) };
    Ok(Some(Opened { url, channel, role: Role::Guest(share) }))
}

async fn host(dir: &Path, lock: File, store: Bound, variables: Variables) -> Result<Opened, Error> {
    let failed = |source| Error::Directory { path: dir.to_owned(), source };
    // A killed host leaves its address behind.
    let _ = std::fs::remove_file(dir.join("address"));
    let socket = Socket::bind(dir).map_err(failed)?;
    let url = socket.url();
    let (incoming, place) = socket.incoming();
    let (stop_worker, worker_stopped) = watch::channel(false);
    let (stop_coordinator, coordinator_stopped) = watch::channel(false);
    let coordinator = tokio::spawn(parts::coordinator_on(
        parts::own_coordinator(dir.join("coordinator"), store),
        incoming,
        until(coordinator_stopped),
    ));
    let worker = tokio::spawn(parts::worker(
        parts::own_worker(url.clone(), "here".to_owned(), dir.join("worker"), variables),
        until(worker_stopped),
    ));
    let mut host =
        Host { dir: dir.to_owned(), _lock: lock, _place: place, stop_worker, stop_coordinator, worker, coordinator };
    let channel = host.ready(&url).await?;
    let mut address = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    std::io::Write::write_all(&mut address, url.as_bytes()).map_err(failed)?;
    address.persist(dir.join("address")).map_err(|error| failed(error.error))?;
    Ok(Opened { url, channel, role: Role::Host(host) })
}

impl Host {
    /// Waits until the coordinator responds and its worker is connected.
    async fn ready(&mut self, url: &str) -> Result<Channel, Error> {
        loop {
            if self.coordinator.is_finished() {
                return Err(ended("the coordinator", (&mut self.coordinator).await));
            }
            if self.worker.is_finished() {
                return Err(ended("the worker", (&mut self.worker).await));
            }
            if let Ok(channel) = channel::connect(url, &Default::default()).await
                && let Ok(status) = FarmClient::new(channel.clone()).status(StatusRequest {}).await
                && status.get_ref().workers.iter().any(|worker| worker.connected)
            {
                return Ok(channel);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn stop(self) {
        if let Ok(guests) = open_lock(&self.dir.join("guests")) {
            let mut told = false;
            while let Ok(false) = try_lock(&guests, FlockOperation::NonBlockingLockExclusive) {
                if !told {
                    kiln_terminal::say(
                        "another `kiln` still uses the farm inside this one; waiting for it (press Ctrl-C twice to leave)",
                    );
                    told = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            let _ = std::fs::remove_file(self.dir.join("address"));
            self.stop_parts().await;
        } else {
            self.stop_parts().await;
        }
    }

    async fn stop_parts(self) {
        self.stop_worker.send_replace(true);
        let _ = tokio::time::timeout(GRACE, self.worker).await;
        self.stop_coordinator.send_replace(true);
        let _ = tokio::time::timeout(GRACE, self.coordinator).await;
    }
}

impl Opened {
    /// Why the farm inside this process has ended, if it has.
    pub(super) fn fault(&self) -> Option<String> {
        match &self.role {
            Role::Host(host) if host.coordinator.is_finished() => Some("its coordinator ended".to_owned()),
            _ => None,
        }
    }

    /// Leaves the farm; a host first waits for its guests.
    pub(super) async fn close(self) {
        drop(self.channel);
        if let Role::Host(host) = self.role {
            host.stop().await;
        }
    }
}

fn ended(part: &str, result: Result<Result<(), String>, tokio::task::JoinError>) -> Error {
    let reason = match result {
        Ok(Ok(())) => format!("{part} ended before it was ready"),
        Ok(Err(reason)) => format!("{part}: {reason}"),
        Err(error) => format!("{part} failed: {error}"),
    };
    Error::Embedded { reason }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path)
}

fn try_lock(file: &File, how: FlockOperation) -> std::io::Result<bool> {
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
