//! Jobs that ask for other jobs: what a step needs so that its compiler calls run as jobs of their own.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What a job has to do with other jobs; by default, nothing.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    /// What the job may ask for.
    pub offer: Option<Offer>,
    /// The job that it is part of: both together keep within that job's limits.
    pub part_of: Option<Limits>,
    /// Whether to record which files it looks at.
    pub recorded: bool,
    /// Where the executor says that the job has begun, if somebody follows it.
    pub followed: Option<watch::Sender<Option<Begun>>>,
}

/// What a job may ask its worker for.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The directory on this machine that the job finds at `to`.
    pub directory: PathBuf,
    /// An absolute path in the job's root.
    pub to: PathBuf,
    /// The directory, as the job sees it, that comes first in its `PATH`.
    pub programs: PathBuf,
    /// Where the executor says that the job has begun.
    pub begun: watch::Sender<Option<Begun>>,
    /// Where the job finds its worker on its own loopback, if it does.
    pub port: Option<Port>,
}

/// A port on the loopback of a job's own network, which is the worker's. A job that has no network of its own has none.
#[derive(Debug, Clone)]
pub struct Port {
    /// The number, on 127.0.0.1.
    pub number: u16,
    listener: mpsc::Sender<TcpListener>,
    over: CancellationToken,
}

/// The worker's end of a [`Port`].
#[derive(Debug)]
pub struct Listening {
    listener: mpsc::Receiver<TcpListener>,
    over: CancellationToken,
}

/// How long the end of a job waits until its port is closed.
const CLOSING: Duration = Duration::from_secs(1);

impl Port {
    /// Both ends.
    pub fn new(number: u16) -> (Self, Listening) {
        let (sender, listener) = mpsc::channel(1);
        let over = CancellationToken::new();
        (Self { number, listener: sender, over: over.clone() }, Listening { listener, over })
    }

    /// The executor hands over the listener, which is in the job's network.
    pub async fn hand_over(&self, listener: TcpListener) {
        let _ = self.listener.send(listener).await;
    }

    /// The executor says that the job has ended, and waits a moment until the worker has closed what it had in the job's network.
    pub async fn close(&self) {
        self.over.cancel();
        let _ = tokio::time::timeout(CLOSING, self.listener.closed()).await;
    }
}

impl Listening {
    /// The listener; none if the job has ended, or has none.
    pub async fn listener(&mut self) -> Option<TcpListener> {
        tokio::select! {
            listener = self.listener.recv() => listener,
            () = self.over.cancelled() => None,
        }
    }

    /// Completes when the job has ended. What is open in its network is to be closed before this is dropped.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }
}

/// A job that has begun.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The process whose only child is the first process in the job's own namespaces.
    pub parent: u32,
    /// The job's limits.
    pub limits: Limits,
    /// The directory on this machine with what the job has written to its inputs so far.
    pub written: PathBuf,
    /// What the job has looked at so far, if that is recorded.
    pub looks: Looks,
}

impl Begun {
    /// The job's root directory, as this process reaches it.
    ///
    /// # Errors
    /// If the job has ended.
    pub fn root(&self) -> io::Result<PathBuf> {
        let pid = self.parent;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let first = children.split_whitespace().next().ok_or(io::ErrorKind::NotFound)?;
        Ok(PathBuf::from(format!("/proc/{first}/root")))
    }
}

/// Asks for the record of a job that is running.
#[derive(Debug, Clone)]
pub struct Looks(mpsc::Sender<oneshot::Sender<Accesses>>);

/// What is asked about a job, for its executor to answer.
pub type Asked = mpsc::Receiver<oneshot::Sender<Accesses>>;

impl Looks {
    /// Both ends.
    pub fn new() -> (Self, Asked) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Everything that the job has looked at until now; none if it is not recorded, or has ended.
    pub async fn so_far(&self) -> Option<Accesses> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).await.ok()?;
        receiver.await.ok()
    }
}

/// The limits of a job, as its executor keeps them.
#[derive(Clone)]
pub struct Limits(Option<Arc<dyn Any + Send + Sync>>);

impl Limits {
    /// Limits that the executor finds again with [`of`](Self::of).
    pub fn new<T: Any + Send + Sync>(limits: Option<Arc<T>>) -> Self {
        Self(limits.map(|limits| limits as Arc<dyn Any + Send + Sync>))
    }

    /// The limits that this executor made; none if the job's init enforces them.
    pub fn of<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.clone().and_then(|limits| limits.downcast().ok())
    }
}

impl Debug for Limits {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Limits").field(&self.0.is_some()).finish()
    }
}

/// What a job's processes looked at, whether or not it was there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accesses {
    /// Absolute paths, neither normalised nor resolved, in the job's root.
    pub paths: BTreeSet<String>,
    /// Directories that were listed.
    pub listed: BTreeSet<String>,
    /// Whether something may be missing: a process of another architecture, or a path that could not be read.
    pub incomplete: bool,
}

impl Accesses {
    /// Adds what was recorded at another time.
    pub fn add(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.listed.extend(other.listed);
        self.incomplete |= other.incomplete;
    }
}
