//! Sandboxes that run one job after another.
//!
//! To make namespaces and the machine's files for a job takes longer than most small commands. A sandbox whose job has ended well is kept for
//! the next job of the same tenant with the same limits; `init/further.rs` says what such jobs share and what each has for itself.
//! Invariant: a sandbox in which something was stopped, reached a limit, or left a socket behind is not used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use super::network::Loopbacks;
use super::spawner::Init;
use super::spec::RELEASE;
use super::{Shared, ids};
use kiln_executor::{Conditions, Job, Place};

/// Maximum number of sandboxes that wait for actions.
const MOST: usize = 32;
/// How long one waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How many jobs one runs.
const MOST_JOBS: u32 = 1000;

/// What two jobs of one sandbox have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    tenant: String,
    limits: (u64, u64, u32, u32),
    recorded: bool,
}

impl Key {
    /// None for a job that gets a sandbox of its own.
    pub(super) fn of(shared: &Shared, job: &Job, is_limited: bool) -> Option<Self> {
        let is_asked = job.calls.offer.is_some() || job.calls.followed.is_some();
        let is_usual = job.conditions == Conditions::default();
        let has_own = !job.secrets.is_empty() || !job.beside.is_empty() || job.session.is_some() || !is_usual;
        let is_plain = job.place == Place::Machine && !job.network && !is_asked && !has_own;
        let is_possible = is_plain && is_limited && shared.keeps && shared.host.is_apart_from_jobs();
        is_possible.then(|| Self {
            tenant: job.tenant.clone(),
            limits: (job.disk_bytes, job.memory_bytes, job.max_processes, job.milli_cpus),
            recorded: job.calls.recorded,
        })
    }
}

pub(super) type Reports = Lines<BufReader<OwnedReadHalf>>;

/// A sandbox: its init, as the worker knows it. When this is dropped, the init ends.
#[derive(Debug)]
pub(super) struct Sandboxed {
    pub(super) pid: u32,
    pub(super) reports: Reports,
    pub(super) writer: OwnedWriteHalf,
    pub(super) ids: Option<Arc<ids::Lease>>,
    /// Completes when the init has ended.
    pub(super) ended: JoinHandle<()>,
    is_used_up: Arc<AtomicBool>,
    jobs: u32,
}

impl Sandboxed {
    /// The sandbox of an init that was started. Its network is used again unless [`use_up`](Self::use_up) was called.
    pub(super) fn new(
        init: Init,
        (reports, writer): (Reports, OwnedWriteHalf),
        ids: Option<Arc<ids::Lease>>,
        loopback: Option<Arc<std::os::fd::OwnedFd>>,
        loopbacks: Arc<Loopbacks>,
    ) -> Self {
        let (pid, is_used_up) = (init.pid, Arc::new(AtomicBool::new(false)));
        let (used_up, last) = (is_used_up.clone(), ids.clone());
        let ended = tokio::spawn(async move {
            init.wait().await;
            // No process has these ids any more.
            drop((init, last));
            if let (Some(network), false) = (loopback.and_then(Arc::into_inner), used_up.load(Ordering::SeqCst)) {
                loopbacks.put_back(network);
            }
        });
        Self { pid, reports, writer, ids, ended, is_used_up, jobs: 0 }
    }

    /// Its network is not as new.
    pub(super) fn use_up(&self) {
        self.is_used_up.store(true, Ordering::SeqCst);
    }

    /// Says that a job's tree is no longer needed; `false` if no other job can follow.
    pub(super) fn release(&mut self) -> bool {
        self.jobs += 1;
        let is_told = self.writer.try_write(RELEASE.as_bytes()).is_ok_and(|written| written == RELEASE.len());
        is_told && self.jobs < MOST_JOBS && !self.ended.is_finished() && !self.is_used_up.load(Ordering::SeqCst)
    }
}

/// The sandboxes that wait for a job, oldest first.
#[derive(Debug)]
pub(super) struct Waiting<T>(Mutex<Vec<(Key, T, Instant)>>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Waiting<T> {
    /// The one that was used last.
    pub(super) fn take(&self, key: &Key) -> Option<T> {
        let mut waiting = self.0.lock();
        let at = waiting.iter().rposition(|(other, ..)| other == key)?;
        Some(waiting.remove(at).1)
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        // Outside the lock: it takes a moment.
        drop(std::mem::take(&mut *self.0.lock()));
    }

    pub(super) fn put(&self, key: Key, kept: T) {
        let mut waiting = self.0.lock();
        let excess = (waiting.len() + 1).saturating_sub(MOST);
        let gone: Vec<_> = waiting.drain(..excess).collect();
        waiting.push((key, kept, Instant::now()));
        drop(waiting);
        drop(gone);
    }

    /// Lets go of those that have waited too long; `false` if none is left.
    pub(super) fn age(&self) -> bool {
        let mut waiting = self.0.lock();
        let old = waiting.iter().take_while(|(_, _, since)| since.elapsed() > PATIENCE).count();
        let gone: Vec<_> = waiting.drain(..old).collect();
        let is_left = !waiting.is_empty();
        drop(waiting);
        drop(gone);
        is_left
    }
}
