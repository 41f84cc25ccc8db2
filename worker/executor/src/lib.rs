//! What runs an action's command: one trait, and what the sandbox and Docker behind it have in common.
//!
//! Invariant: whoever runs it, a command finds its inputs at [`BUILD`] and a home of its own, may use what its [`Job`] says,
//! and when it has ended every process that it started is gone.

pub mod disk;
pub mod ending;
mod job;
pub mod layers;
pub mod output;
mod place;
pub mod program;
pub mod scratch;
mod secrets;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use job::HOME;
pub use job::{BUILD, Chunk, Exit, Finished, Job, OutputTree, Stream};
pub use place::Place;
pub use secrets::Secrets;

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
