//! The circuit breaker of a remote store: after a call that failed as the store itself does, the others fail at once until the store has
//! been found answering, so that no build waits for it twice. Each change is reported once.

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

/// How a remote store is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// Reads and writes work.
    #[default]
    Up,
    /// It reads but refuses to write: full, or a replica. In its words.
    NoWrites(String),
    /// It does not answer. In words.
    Away(String),
}

/// The state of one remote store.
#[derive(Debug, Default)]
pub(crate) struct Breaker(watch::Sender<Health>);

impl Breaker {
    pub(crate) fn new(health: Health) -> Self {
        Self(watch::Sender::new(health))
    }

    /// The state, and each change of it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }

    pub(crate) fn health(&self) -> Health {
        self.0.borrow().clone()
    }

    /// Why no call is to be made now.
    pub(crate) fn away(&self) -> Option<String> {
        if let Health::Away(why) = &*self.0.borrow() { Some(why.clone()) } else { None }
    }

    /// The store does not answer. True where it did before.
    pub(crate) fn open(&self, why: String) -> bool {
        !matches!(self.0.send_replace(Health::Away(why)), Health::Away(_))
    }

    /// The store refuses to write. True where it did write before.
    pub(crate) fn refuse_writes(&self, why: String) -> bool {
        self.0.send_if_modified(|health| {
            let first = *health == Health::Up;
            if first {
                *health = Health::NoWrites(why);
            }
            first
        })
    }

    /// The store wrote. True where it refused to before.
    pub(crate) fn accept_writes(&self) -> bool {
        self.0.send_if_modified(|health| {
            let again = matches!(health, Health::NoWrites(_));
            if again {
                *health = Health::Up;
            }
            again
        })
    }

    /// The store answers again.
    pub(crate) fn close(&self) {
        self.0.send_replace(Health::Up);
    }
}
