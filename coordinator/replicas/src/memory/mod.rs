//! A register in memory, for simulations and tests: it promises what one in Redis does, and the way of each replica to it can be cut off,
//! slowed down, or made to lose answers.

mod engine;
mod state;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_journal::Engine;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Error;
use crate::register::{Claimed, Register};
use crate::replica::{Replica, Term};
use engine::MemoryEngine;
use state::State;

/// How calls of one replica reach the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// They do.
    #[default]
    Open,
    /// They do not.
    Cut,
    /// They take effect, and their answers are lost.
    LosesAnswers,
}

#[derive(Debug, Default)]
struct Path {
    way: Mutex<(Way, Duration)>,
}

impl Path {
    /// Makes a call as this path allows.
    async fn call<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        let (_, delay) = *self.way.lock();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // What counts is the way when the call arrives.
        let (way, _) = *self.way.lock();
        match way {
            Way::Open => Some(call()),
            Way::Cut => None,
            Way::LosesAnswers => {
                call();
                None
            }
        }
    }
}

/// The time since the register was made, by its own clock: replicas may have other ones.
#[derive(Clone)]
struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// One replica's way to a register in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryRegister {
    state: Arc<Mutex<State>>,
    path: Arc<Path>,
    clock: Clock,
}

impl Default for MemoryRegister {
    fn default() -> Self {
        let began = Instant::now();
        Self::by(move || began.elapsed())
    }
}

impl MemoryRegister {
    /// An empty register.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty register with this clock, as in a simulation whose hosts have their own.
    pub fn by(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { state: Arc::default(), path: Arc::default(), clock: Clock(Arc::new(clock)) }
    }

    /// Another replica's way to the same register.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { path: Arc::default(), ..self.clone() }
    }

    /// The terms in which something was committed, in this order.
    pub fn wrote(&self) -> Vec<Term> {
        self.state.lock().wrote.clone()
    }

    /// How many commits were refused because their term did not have the lease.
    pub fn refused(&self) -> u64 {
        self.state.lock().refused
    }

    /// How calls over this way fare from now on, those under way included.
    pub fn set_way(&self, way: Way) {
        self.path.way.lock().0 = way;
    }

    /// How long calls take from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.path.way.lock().1 = delay;
    }

    async fn call<T>(&self, call: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let called = self.path.call(|| call(&mut self.state.lock())).await;
        called.ok_or_else(|| Error::Away { why: "its replica is cut off".to_owned() })
    }
}

#[async_trait]
impl Register for MemoryRegister {
    async fn check(&self, _me: &Replica) -> Result<Vec<String>, Error> {
        self.call(|_| Vec::new()).await
    }

    async fn claim(&self, me: &Replica, held: Option<&Term>, lease: Duration) -> Result<Claimed, Error> {
        self.call(|state| state.claim((self.clock.0)(), me, held, lease)).await
    }

    async fn release(&self, me: &Replica, term: &Term) -> Result<(), Error> {
        self.call(|state| state.release(me, term)).await
    }

    fn journal(&self, tenant: &str, term: &Term) -> Arc<dyn Engine> {
        Arc::new(MemoryEngine::new(self.clone(), tenant, term.clone()))
    }

    async fn tenants(&self) -> Result<Vec<String>, Error> {
        self.call(|state| state.journals.keys().cloned().collect()).await
    }
}
