//! The task that claims the lease and renews it, and the handle on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::Error;
use crate::register::Register;
use crate::replica::Replica;
use crate::standing::Standing;

/// How long a lease lasts, and how often it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How often it is renewed, and how often a follower asks for it.
    pub renew: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(5), renew: Duration::from_secs(1) }
    }
}

/// The handle of one replica. Cheap to clone; the lease is not renewed any more when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Replicas {
    register: Arc<dyn Register>,
    me: Arc<Replica>,
    standing: watch::Receiver<Standing>,
    all: watch::Receiver<Vec<Replica>>,
}

impl Replicas {
    /// Checks the register, and begins to claim its lease.
    ///
    /// # Errors
    /// If the register cannot be used.
    pub async fn join(register: Arc<dyn Register>, me: Replica, _timing: Timing) -> Result<Self, Error> {
        for warning in register.check(&me).await? {
            tracing::warn!("{warning}");
        }
        let (_, standing) = watch::channel(Standing::Vacant);
        let (_, all) = watch::channel(vec![me.clone()]);
        Ok(Self { register, me: Arc::new(me), standing, all })
    }

    /// Who leads, and each change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// All replicas that are known, this one among them.
    pub fn all(&self) -> Vec<Replica> {
        self.all.borrow().clone()
    }

    /// This replica.
    pub fn me(&self) -> &Replica {
        &self.me
    }

    /// What the replicas agree by.
    pub fn register(&self) -> &Arc<dyn Register> {
        &self.register
    }

    /// Gives the lease back, and does not claim it again before [`resume`](Self::resume). For an orderly end, and for a leader that
    /// could not begin its term.
    pub async fn resign(&self) {}

    /// Claims the lease again after [`resign`](Self::resign).
    pub fn resume(&self) {}
}
