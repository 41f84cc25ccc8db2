//! The link to the coordinator: dial, register, take leases, report; and again after a broken connection.
//!
//! Invariant: what runs goes on while there is no connection. A result is kept, and sent again on each new connection, until the
//! coordinator has acknowledged it. That is so while the worker drains, too: it dials again as long as its grace lasts.

mod backoff;
mod session;

use std::sync::Arc;
use std::time::Duration;

use kiln_proto::channel::Dial;
use kiln_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::leases::Leases;
use crate::runner::Runner;
pub(crate) use backoff::Backoff;

/// What a worker says of itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name in the farm.
    pub name: String,
    /// What its machine is.
    pub environment: v1::Environment,
    /// What it offers.
    pub capacity: v1::Capacity,
    /// Random bytes of this process.
    pub session: Vec<u8>,
    /// The tenants whose leases it takes; everybody's where it names none.
    pub tenants: Vec<String>,
}

/// How long cancelled work has to clean up after itself before the process ends.
const CLEANING: Duration = Duration::from_secs(10);

/// When a worker drains, and when it is gone.
#[derive(Debug, Clone)]
struct Stopping {
    /// It was told to stop: it takes nothing new, and finishes what it holds.
    drain: CancellationToken,
    /// It holds nothing any more, or its grace is over.
    leave: CancellationToken,
}

impl Stopping {
    fn new(stop: CancellationToken, leases: Arc<Leases>, grace: Duration) -> Self {
        let stopping = Self { drain: stop, leave: CancellationToken::new() };
        let watched = stopping.clone();
        tokio::spawn(async move {
            watched.drain.cancelled().await;
            let _ = tokio::time::timeout(grace, leases.idle()).await;
            watched.leave.cancel();
        });
        stopping
    }
}

/// How long another worker may be connected under the same name before this one gives up: a connection that broke unnoticed is found out by then.
const NAME_IN_USE: Duration = Duration::from_secs(60);

/// The link cannot be kept up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another worker of this name is connected.
    #[error("{0}")]
    NameInUse(String),
}

/// Keeps the link to the farm up until `stop`, and registers anew when the worker says something else of itself; then finishes what runs (at most `grace`) and says goodbye.
///
/// # Errors
/// Where another worker stays connected under the same name.
pub async fn keep(
    farm: &Dial,
    identity: watch::Receiver<Identity>,
    runner: Arc<Runner>,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let leases = Arc::new(Leases::default());
    let stopping = Stopping::new(stop, leases.clone(), grace);
    let mut pause = Backoff::default();
    let (mut refused_since, mut refused): (Option<Instant>, _) = (None, None);
    while !stopping.leave.is_cancelled() {
        let outcome = session::run(farm, &identity, &runner, &leases, &stopping).await;
        if !matches!(outcome, session::Ended::NameInUse { .. }) {
            refused_since = None;
        }
        match outcome {
            session::Ended::NameInUse { reason } => {
                if refused_since.is_none() {
                    tracing::warn!(reason, name = identity.borrow().name, "the name is in use; retrying for a minute");
                }
                if refused_since.get_or_insert_with(Instant::now).elapsed() >= NAME_IN_USE {
                    refused = Some(Error::NameInUse(reason));
                    break;
                }
            }
            session::Ended::Stopped => break,
            session::Ended::Changed => continue,
            session::Ended::Broken { after_registering: true, reason } => {
                tracing::warn!(
                    reason,
                    running = leases.running_count(),
                    "connection lost; running leases continue, reconnecting"
                );
                pause = Backoff::default();
            }
            session::Ended::Broken { after_registering: false, reason } => {
                if pause.is_fresh() {
                    tracing::warn!(reason, url = farm.url, "cannot reach the coordinator; retrying");
                }
            }
        }
        tokio::select! {
            () = pause.wait() => {}
            () = stopping.leave.cancelled() => break,
        }
    }
    leases.cancel_all();
    if tokio::time::timeout(CLEANING, leases.ended()).await.is_err() {
        tracing::warn!(running = leases.running_count(), "what was cancelled has not ended; leaving without it");
    }
    refused.map_or(Ok(()), Err)
}
