//! What replicas agree by.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_journal::Engine;

use crate::error::Error;
use crate::replica::{Replica, Term};

/// What a register knows at the moment when it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Who holds the lease.
    pub holder: Option<(Replica, Term)>,
    /// All replicas that announced themselves lately, the one that asks among them, in the order of their names.
    pub all: Vec<Replica>,
}

/// What the replicas agree by. Redis is one; tests have another.
#[async_trait]
pub trait Register: Debug + Send + Sync {
    /// Whether it can be used: its settings, and the versions of the other replicas. Returns warnings.
    ///
    /// # Errors
    /// What cannot work, with its fix.
    async fn check(&self, me: &Replica) -> Result<Vec<String>, Error>;

    /// Takes the lease for so long if it is free or is `me`'s, renews it if `held` is the term that has it, or learns who has it. With a
    /// lease of zero it only learns. In any case it announces `me` and learns of all replicas.
    ///
    /// # Errors
    /// If the register cannot be reached. Then the claim may have taken effect or not.
    async fn claim(&self, me: &Replica, held: Option<&Term>, lease: Duration) -> Result<Claimed, Error>;

    /// Gives the lease back if this term has it, so that another replica can take it at once, and withdraws the announcement of `me`.
    ///
    /// # Errors
    /// If the register cannot be reached.
    async fn release(&self, me: &Replica, term: &Term) -> Result<(), Error>;

    /// The journal of a tenant; the default one is `""`. Its commits are refused with [`kiln_journal::Error::Fenced`] unless this term
    /// holds the lease; reading is free to all. A term writes a tenant's journal by one engine: of two, one would find its commits
    /// overtaken by the other's.
    fn journal(&self, tenant: &str, term: &Term) -> Arc<dyn Engine>;

    /// Tenants that have a journal, sorted.
    ///
    /// # Errors
    /// If the register cannot be reached.
    async fn tenants(&self) -> Result<Vec<String>, Error>;
}
