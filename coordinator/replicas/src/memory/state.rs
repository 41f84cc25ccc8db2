//! The lease and the journals of a register in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::register::Claimed;
use crate::replica::{Replica, Term};
use bytes::Bytes;
use kiln_journal::Write;

/// How long a replica is known after it was last heard of.
const ANNOUNCED: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct Lease {
    holder: Replica,
    term: Term,
    until: Duration,
}

/// One tenant's journal.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) streams: BTreeMap<String, BTreeMap<u64, Bytes>>,
    pub(super) spaces: BTreeMap<&'static str, BTreeMap<String, Bytes>>,
}

/// What all replicas share. Times are those of the register, since it was made.
#[derive(Debug, Default)]
pub(super) struct State {
    lease: Option<Lease>,
    epoch: u64,
    announced: BTreeMap<String, (Replica, Duration)>,
    pub(super) journals: BTreeMap<String, Journal>,
    /// The terms in which something was committed, each as often as it followed another one.
    pub(super) wrote: Vec<Term>,
    /// Commits of terms that did not have the lease.
    pub(super) refused: u64,
}

impl State {
    pub(super) fn claim(&mut self, now: Duration, me: &Replica, held: Option<&Term>, lease: Duration) -> Claimed {
        self.lease.take_if(|lease| lease.until <= now);
        if !lease.is_zero() {
            let until = now + lease;
            match &mut self.lease {
                Some(current) if current.holder.name == me.name && Some(&current.term) == held => current.until = until,
                Some(current) if current.holder.name != me.name => {}
                _ => {
                    self.epoch += 1;
                    let term = Term { epoch: self.epoch, nonce: format!("{:016x}", rand::random::<u64>()) };
                    self.lease = Some(Lease { holder: me.clone(), term, until });
                }
            }
        }
        self.announced.insert(me.name.clone(), (me.clone(), now));
        self.announced.retain(|_, (_, at)| now.saturating_sub(*at) <= ANNOUNCED);
        let holder = self.lease.as_ref().map(|lease| (lease.holder.clone(), lease.term.clone()));
        Claimed { holder, all: self.announced.values().map(|(replica, _)| replica.clone()).collect() }
    }

    pub(super) fn release(&mut self, me: &Replica, term: &Term) {
        self.lease.take_if(|lease| lease.holder.name == me.name && lease.term == *term);
        self.announced.remove(&me.name);
    }

    /// Whether this term has the lease now.
    pub(super) fn holds(&self, now: Duration, term: &Term) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.term == *term && lease.until > now)
    }
}

impl Journal {
    pub(super) fn write(&mut self, write: &Write) {
        match write {
            Write::Append { stream, position, data } => {
                self.streams.entry(stream.to_string()).or_default().insert(*position, data.clone());
            }
            Write::RemoveStream { stream } => {
                self.streams.remove(&**stream);
            }
            Write::Put { space, key, value } => {
                self.spaces.entry(space).or_default().insert(key.clone(), value.clone());
            }
            Write::Remove { space, key } => {
                self.spaces.entry(space).or_default().remove(key);
            }
        }
    }
}
