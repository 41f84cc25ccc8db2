//! The interface to whatever runs an action's command, and what its implementations, sandbox and Docker, share.
//!
//! Invariant: with every implementation, a command finds its inputs at [`BUILD`] and a home directory of its own and
//! may use what its [`Job`] allows, and every process that it started is gone when it has ended.

pub mod calls;
pub mod cpus;
pub mod disk;
pub mod ending;
mod job;
pub mod layers;
pub mod mask;
pub mod output;
pub mod output_log;
mod place;
pub mod program;
pub mod rooted;
pub mod samples;
pub mod scratch;
mod secrets;
pub mod session;
mod user;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use job::{BUILD, Chunk, Conditions, Exit, Finished, Job, OutputTree, Stream};
pub use job::{HOME, HOSTNAME};
pub use place::Place;
pub use rooted::Rooted;
pub use secrets::Secrets;
pub use user::User;

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The worker's fault: another worker may succeed.
    #[error("{0}")]
    Worker(String),
    /// The action asks for something that no worker can do.
    #[error("{0}")]
    Action(String),
    /// It was cancelled before it started.
    #[error("the action was cancelled")]
    Cancelled,
}

/// Runs commands.
#[async_trait::async_trait]
pub trait Executor: std::fmt::Debug + Send + Sync {
    /// Runs a command until it ends and sends its output as it appears. The sender is dropped once everything was sent.
    ///
    /// # Errors
    /// Only if the command could not be run; a command that fails is not an error.
    async fn run(&self, job: Job, output: mpsc::Sender<Chunk>, cancel: CancellationToken) -> Result<Finished, Error>;

    /// Strings of the machine that a command with network access can see and must not print, such as a proxy's
    /// password.
    fn hidden(&self) -> &[Zeroizing<String>] {
        &[]
    }

    /// Whether a command with network access has a network of its own.
    fn has_own_networks(&self) -> bool {
        false
    }
}
