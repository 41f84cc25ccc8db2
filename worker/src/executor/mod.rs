//! What runs an action's command: one trait, and behind it the sandbox and Docker.
//!
//! Invariant: whoever runs it, a command finds its inputs at [`BUILD`] and a home of its own, may use what its [`Job`] says,
//! and when it has ended every process that it started is gone.

pub(crate) mod disk;
pub(crate) mod ending;
mod job;
pub(crate) mod layers;
pub(crate) mod output;
mod place;
pub(crate) mod program;
pub(crate) mod scratch;
mod secrets;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub(crate) use job::HOME;
pub use job::{BUILD, Chunk, Exit, Finished, Job, OutputTree, Stream};
pub use place::Place;
pub use secrets::Secrets;

use crate::docker::Offer;
use crate::sandbox::Sandbox;

/// A command that was not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The worker's own trouble: another worker may do better.
    #[error("{0}")]
    Worker(String),
    /// The action asks for what nobody can do.
    #[error("{0}")]
    Action(String),
    /// The caller no longer wanted it, before it ran.
    #[error("the action was cancelled")]
    Cancelled,
}

/// Runs commands.
#[async_trait::async_trait]
pub trait Executor: std::fmt::Debug + Send + Sync {
    /// Runs a command to its end, sending its output as it appears. The sender is dropped when all of it was sent.
    ///
    /// # Errors
    /// Where the command could not be run; one that fails is no error.
    async fn run(&self, job: Job, output: mpsc::Sender<Chunk>, cancel: CancellationToken) -> Result<Finished, Error>;

    /// What a command with the network is shown of the machine and must not print, such as a proxy's password.
    fn hidden(&self) -> &[Zeroizing<String>] {
        &[]
    }
}

/// A worker's executors, each for the jobs of its kind.
#[derive(Debug)]
pub struct Executors {
    sandbox: Sandbox,
    docker: Arc<Offer>,
}

impl Executors {
    /// These; without Docker, jobs that want it are refused.
    pub fn new(sandbox: Sandbox, docker: Arc<Offer>) -> Self {
        Self { sandbox, docker }
    }

    async fn in_docker(
        &self,
        job: Job,
        output: mpsc::Sender<Chunk>,
        cancel: CancellationToken,
    ) -> Result<Finished, Error> {
        let Some(docker) = self.docker.docker() else {
            return Err(Error::Worker("this worker has no Docker".to_owned()));
        };
        let finished = match job.place {
            Place::ImageResolver => docker.resolver().run(job, output, cancel).await,
            _ => docker.run(job, output, cancel).await,
        };
        if matches!(finished, Err(Error::Worker(_))) {
            // Where its engine is gone, the next job is not to come here.
            self.docker.look().await;
        }
        finished
    }
}

#[async_trait::async_trait]
impl Executor for Executors {
    async fn run(&self, job: Job, output: mpsc::Sender<Chunk>, cancel: CancellationToken) -> Result<Finished, Error> {
        match job.place {
            Place::Machine => Executor::run(&self.sandbox, job, output, cancel).await,
            Place::Image(..) | Place::ImageResolver => self.in_docker(job, output, cancel).await,
        }
    }

    fn hidden(&self) -> &[Zeroizing<String>] {
        self.sandbox.hidden()
    }
}
