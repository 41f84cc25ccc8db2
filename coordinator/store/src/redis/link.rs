//! The connection to Redis, and its health.
//!
//! Invariants: no call takes longer than [`CALL`]. After one call failed because of Redis itself, all others fail
//! immediately until a background task has found Redis responding again, so nothing piles up. Each change of health is
//! reported once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff};
use kiln_redis::{CALL, Connection, connect};
use parking_lot::Mutex;
use redis::{Cmd, RedisError, Value};
use tokio::sync::{Notify, Semaphore, watch};

use crate::breaker::{Breaker, Health, LONGEST_PAUSE, PAUSES};

use super::{Address, Error};

/// Maximum concurrent calls; further ones wait, within [`CALL`].
const CALLS: usize = 256;
/// How often an idle Redis is checked.
const IDLE_CHECK: Duration = Duration::from_secs(15);

struct Shared {
    address: Address,
    /// Connections are numbered, so that a failure of an old one is not attributed to the new one.
    connection: Mutex<(u64, Option<Connection>)>,
    breaker: Breaker,
    writes: Mutex<Writes>,
    calls: Semaphore,
    wake: Notify,
}

/// When to try the next write after Redis refused one.
struct Writes {
    /// No write is tried before this time.
    after: Option<Instant>,
    pauses: ExponentialBackoff,
}

impl Default for Writes {
    fn default() -> Self {
        Self { after: None, pauses: PAUSES.build() }
    }
}

/// A handle to one Redis or cluster. Cheap to clone; dropping the last one closes the connection.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

/// Whether a command changes data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Link {
    /// Connects. An unavailable Redis is not an error: the farm continues without it and uses it once it responds.
    ///
    /// # Errors
    /// If the address or its credentials are wrong, so that waiting would not help.
    pub async fn open(address: Address) -> Result<Self, Error> {
        let (found, health) = match connect(&address).await {
            Ok(connection) => (Some(connection), Health::Up),
            Err(Error::Away { shown, why }) => {
                tracing::warn!(redis = shown, why, "Redis is unreachable; the farm starts without it");
                (None, Health::Away(why))
            }
            Err(other) => return Err(other),
        };
        let shared = Arc::new(Shared {
            address,
            connection: Mutex::new((0, found)),
            breaker: Breaker::new(health),
            writes: Mutex::default(),
            calls: Semaphore::new(CALLS),
            wake: Notify::new(),
        });
        tokio::spawn(watch_over(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// The health of Redis, and each change of it.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.breaker.subscribe()
    }

    /// Whether Redis recently refused a write while reads work.
    pub(super) fn refuses_writes(&self) -> bool {
        matches!(self.shared.breaker.health(), Health::NoWrites(_))
    }

    /// Runs one command.
    pub(super) async fn call(&self, access: Access, command: Cmd) -> Result<Value, Error> {
        let values = self.calls(access, vec![command]).await?;
        values.into_iter().next().unwrap_or(Ok(Value::Nil))
    }

    /// Runs independent commands; returns their answers in the same order. The outer error is Redis's, an inner one is
    /// the command's own.
    pub(super) async fn calls(&self, access: Access, commands: Vec<Cmd>) -> Result<Vec<Result<Value, Error>>, Error> {
        let shared = &self.shared;
        if access == Access::Write {
            shared.may_write()?;
        }
        let (count, connection) = {
            let connection = shared.connection.lock();
            (connection.0, connection.1.clone())
        };
        let Some(connection) = connection else {
            let why = shared.breaker.away().unwrap_or_else(|| "reconnecting".to_owned());
            return Err(Error::Away { shown: shared.address.shown().to_owned(), why });
        };
        let work = async {
            let _permit = shared.calls.acquire().await;
            connection.run(commands).await
        };
        let answers = match tokio::time::timeout(CALL, work).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return Err(shared.failed(count, &error)),
            Err(_) => return Err(shared.away(count, format!("no response within {} s", CALL.as_secs()))),
        };
        let mut wrote = access == Access::Write;
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            match answer {
                Ok(value) => results.push(Ok(value)),
                Err(error) => match shared.failed(count, &error) {
                    away @ Error::Away { .. } => return Err(away),
                    other => {
                        wrote &= !matches!(other, Error::NoWrites { .. });
                        results.push(Err(other));
                    }
                },
            }
        }
        if wrote {
            shared.wrote();
        }
        Ok(results)
    }
}

impl Shared {
    /// Updates the health according to an error.
    fn failed(&self, connection: u64, error: &RedisError) -> Error {
        let found = kiln_redis::failure(self.address.shown(), error);
        match &found {
            Error::Away { why, .. } => return self.away(connection, why.clone()),
            Error::NoWrites { why, .. } => self.refuse_writes(why),
            _ => {}
        }
        found
    }

    fn refuse_writes(&self, why: &str) {
        let pause = {
            let mut writes = self.writes.lock();
            let pause = writes.pauses.next().unwrap_or(LONGEST_PAUSE);
            writes.after = Instant::now().checked_add(pause);
            pause
        };
        if self.breaker.refuse_writes(why.to_owned()) {
            tracing::warn!(
                redis = self.address.shown(),
                why,
                pause_ms = pause.as_millis() as u64,
                "Redis accepts no writes; its contents are still used"
            );
        }
    }

    fn away(&self, connection: u64, why: String) -> Error {
        let shown = self.address.shown().to_owned();
        {
            let mut current = self.connection.lock();
            if current.0 != connection {
                return Error::Away { shown, why };
            }
            *current = (connection.saturating_add(1), None);
        }
        if self.breaker.open(why.clone()) {
            tracing::warn!(redis = shown, why, "Redis is unreachable; the farm continues without it until it is back");
        }
        self.wake.notify_one();
        Error::Away { shown, why }
    }

    fn may_write(&self) -> Result<(), Error> {
        match (self.writes.lock().after, self.breaker.health()) {
            (Some(after), Health::NoWrites(why)) if Instant::now() < after => {
                Err(Error::NoWrites { shown: self.address.shown().to_owned(), why })
            }
            _ => Ok(()),
        }
    }

    fn wrote(&self) {
        if self.breaker.accept_writes() {
            *self.writes.lock() = Writes::default();
            tracing::info!(redis = self.address.shown(), "Redis accepts writes again");
        }
    }
}

/// Watches for Redis to recover, and checks an idle one.
async fn watch_over(shared: std::sync::Weak<Shared>) {
    let mut pauses = PAUSES.build();
    loop {
        let Some(strong) = shared.upgrade() else { return };
        if strong.connection.lock().1.is_some() {
            pauses = PAUSES.build();
            let link = Link { shared: strong };
            let woken = tokio::time::timeout(IDLE_CHECK, link.shared.wake.notified()).await.is_ok();
            if !woken {
                let _ = link.call(Access::Read, redis::cmd("PING")).await;
            }
            continue;
        }
        match connect(&strong.address).await {
            Ok(connection) => {
                strong.connection.lock().1 = Some(connection);
                strong.breaker.close();
                tracing::info!(redis = strong.address.shown(), "Redis is back and used again");
            }
            Err(error) => {
                tracing::debug!(%error, "Redis is not back yet");
                drop(strong);
                tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            }
        }
    }
}
