//! Fair shares: a virtual time for each share of the farm, and for each build in a share.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng, "Start-time Fair Queuing", 1996): whoever has used least goes first; a
//! new share starts at the current virtual time, so that idling accumulates nothing.

use super::Map;
use super::slab::{Id, Slab};

/// The id of a share of the farm, or of a build's part of it.
pub(super) type ShareId = Id;

#[derive(Debug)]
struct Share {
    virtual_time: u64,
    /// Number of actions that keep this share open.
    actions: usize,
    /// Virtual time of the inner share that was served last.
    clock: u64,
    name: String,
    /// The builds of a share of the farm.
    inner: Map<String, ShareId>,
}

impl Share {
    fn new(name: &str, virtual_time: u64) -> Self {
        Share { virtual_time, actions: 0, clock: 0, name: name.to_owned(), inner: Map::default() }
    }
}

/// All open shares.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: Slab<Share>,
    outer: Map<String, ShareId>,
    clock: u64,
}

impl Shares {
    /// Opens a share and a build's part of it for one more action.
    pub(super) fn open(&mut self, outer: &str, build: &str) -> (ShareId, ShareId) {
        let outer = match self.outer.get(outer) {
            Some(id) => *id,
            None => {
                let id = self.shares.insert(Share::new(outer, self.clock));
                self.outer.insert(outer.to_owned(), id);
                id
            }
        };
        let share = self.shares.get(outer);
        let build = match share.and_then(|share| share.inner.get(build)) {
            Some(id) => *id,
            None => {
                let clock = share.map_or(0, |share| share.clock);
                let id = self.shares.insert(Share::new(build, clock));
                if let Some(share) = self.shares.get_mut(outer) {
                    share.inner.insert(build.to_owned(), id);
                }
                id
            }
        };
        for id in [outer, build] {
            if let Some(share) = self.shares.get_mut(id) {
                share.actions += 1;
            }
        }
        (outer, build)
    }

    /// Closes them for one action; a share without actions is removed.
    pub(super) fn close(&mut self, (outer, build): (ShareId, ShareId)) {
        if let Some(ended) = self.close_one(build)
            && let Some(share) = self.shares.get_mut(outer)
        {
            share.inner.remove(&ended.name);
        }
        if let Some(ended) = self.close_one(outer) {
            self.outer.remove(&ended.name);
        }
    }

    fn close_one(&mut self, id: ShareId) -> Option<Share> {
        let share = self.shares.get_mut(id)?;
        share.actions -= 1;
        if share.actions == 0 { self.shares.remove(id) } else { None }
    }

    pub(super) fn virtual_time(&self, id: ShareId) -> u64 {
        self.shares.get(id).map_or(0, |share| share.virtual_time)
    }

    /// Charges these shares for an assigned action.
    pub(super) fn charge(&mut self, (outer, build): (ShareId, ShareId), milli_cpus: u32) {
        let cost = u64::from(milli_cpus.max(1));
        let served = self.virtual_time(build);
        if let Some(share) = self.shares.get_mut(build) {
            share.virtual_time += cost;
        }
        if let Some(share) = self.shares.get_mut(outer) {
            share.clock = share.clock.max(served);
            self.clock = self.clock.max(share.virtual_time);
            share.virtual_time += cost;
        }
    }
}
