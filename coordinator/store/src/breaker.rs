//! The circuit breaker of a remote store: after one call failed because of the store itself, all others fail immediately
//! until the store has been found responding, so that no build waits for it twice. Each change is reported once.

use std::time::Duration;

use backon::ExponentialBuilder;
use tokio::sync::watch;

/// Pauses between attempts to reach a remote store.
pub(crate) const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(LONGEST_PAUSE)
    .with_jitter()
    .without_max_times();
/// Longest pause before jitter.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The health of a remote store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// Reads and writes work.
    #[default]
    Up,
    /// Reads work but writes are refused: it is full, or a replica. With its message.
    NoWrites(String),
    /// It does not respond. With the reason.
    Away(String),
}

/// The state of one remote store.
#[derive(Debug, Default)]
pub(crate) struct Breaker(watch::Sender<Health>);

impl Breaker {
    pub(crate) fn new(health: Health) -> Self {
        Self(watch::Sender::new(health))
    }

    /// The health, and each change of it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }

    pub(crate) fn health(&self) -> Health {
        self.0.borrow().clone()
    }

    /// Why no call can be made now.
    pub(crate) fn away(&self) -> Option<String> {
        if let Health::Away(why) = &*self.0.borrow() { Some(why.clone()) } else { None }
    }

    /// The store does not respond. Returns whether it did before.
    pub(crate) fn open(&self, why: String) -> bool {
        !matches!(self.0.send_replace(Health::Away(why)), Health::Away(_))
    }

    /// The store refuses writes. Returns whether it was up before.
    pub(crate) fn refuse_writes(&self, why: String) -> bool {
        self.0.send_if_modified(|health| {
            let first = *health == Health::Up;
            if first {
                *health = Health::NoWrites(why);
            }
            first
        })
    }

    /// The store accepted a write. Returns whether it refused them before.
    pub(crate) fn accept_writes(&self) -> bool {
        self.0.send_if_modified(|health| {
            let again = matches!(health, Health::NoWrites(_));
            if again {
                *health = Health::Up;
            }
            again
        })
    }

    /// The store responds again.
    pub(crate) fn close(&self) {
        self.0.send_replace(Health::Up);
    }
}
