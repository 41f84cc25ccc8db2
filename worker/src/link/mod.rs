//! The connection to the coordinator: connects, registers, receives leases, reports results, and reconnects.
//!
//! Of a farm with several coordinators, the link goes to any of them, and to the next when that one is gone or refuses it.
//! Invariant: running leases continue while there is no connection. A result is kept, and sent again on each new connection, until
//! the coordinator has acknowledged it. This also holds while the worker drains: it reconnects for as long as its grace lasts.

mod backoff;
mod fence;
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

/// How a worker identifies itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name in the farm.
    pub name: String,
    /// Its environment, as probed.
    pub environment: v1::Environment,
    /// What it offers.
    pub capacity: v1::Capacity,
    /// Random bytes of this process.
    pub session: Vec<u8>,
    /// The tenants whose leases it takes; empty for all.
    pub tenants: Vec<String>,
}

/// How long cancelled leases have to clean up before the process ends.
const CLEANING: Duration = Duration::from_secs(10);

/// The stages of a shutdown.
#[derive(Debug, Clone)]
struct Stopping {
    /// The worker was told to stop: it takes nothing new and finishes what it holds.
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

/// How long to retry while another worker is connected under the same name: by then a connection that broke unnoticed is detected.
const NAME_IN_USE: Duration = Duration::from_secs(60);

/// The longest pause between attempts to reach one of several coordinators.
const LONGEST_OF_SEVERAL: Duration = Duration::from_secs(1);

/// Why the connection cannot be maintained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another worker with this name is connected.
    #[error("{0}")]
    NameInUse(String),
}

/// Maintains the connection until `stop`, and registers again when the identity changes. Then finishes running leases
/// (for at most `grace`) and says goodbye.
///
/// # Errors
/// If another worker stays connected under the same name.
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
    let mut fence = fence::Fence::default();
    // One of several coordinators is there sooner than one that has to start again.
    let longest = if farm.url.contains(',') { LONGEST_OF_SEVERAL } else { Duration::MAX };
    let (mut refused_since, mut refused): (Option<Instant>, _) = (None, None);
    while !stopping.leave.is_cancelled() {
        let outcome = session::run(farm, &identity, &runner, &leases, &stopping, &mut fence).await;
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
            () = pause.wait_at_most(longest) => {}
            () = stopping.leave.cancelled() => break,
        }
    }
    leases.cancel_all();
    if tokio::time::timeout(CLEANING, leases.ended()).await.is_err() {
        tracing::warn!(running = leases.running_count(), "cancelled leases have not ended; leaving anyway");
    }
    refused.map_or(Ok(()), Err)
}
