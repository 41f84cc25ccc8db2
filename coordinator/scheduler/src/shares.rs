//! Fair shares: a virtual time for each share of the farm, and for each build in a share.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng, "Start-time Fair Queuing", 1996): whoever has used least goes first; a
//! new share starts at the current virtual time, so that idling accumulates nothing.

use std::collections::HashMap;

/// The id of a share of the farm, or of a build's part of it.
pub(super) type ShareId = u64;

#[derive(Debug, Default)]
struct Share {
    virtual_time: u64,
    /// Number of actions that keep this share open.
    actions: usize,
    /// Virtual time of the inner share that was served last.
    clock: u64,
    name: (ShareId, String),
}

/// All open shares.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: HashMap<ShareId, Share>,
    names: HashMap<(ShareId, String), ShareId>,
    next: ShareId,
    clock: u64,
}

impl Shares {
    /// Opens a share and a build's part of it for one more action.
    pub(super) fn open(&mut self, outer: &str, build: &str) -> (ShareId, ShareId) {
        let outer = self.open_one(0, outer, self.clock);
        let clock = self.shares.get(&outer).map_or(0, |share| share.clock);
        (outer, self.open_one(outer, build, clock))
    }

    fn open_one(&mut self, parent: ShareId, name: &str, clock: u64) -> ShareId {
        let name = (parent, name.to_owned());
        let id = *self.names.entry(name.clone()).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let share = self.shares.entry(id).or_insert_with(|| Share { virtual_time: clock, name, ..Share::default() });
        share.actions += 1;
        id
    }

    /// Closes them for one action; a share without actions is removed.
    pub(super) fn close(&mut self, (outer, build): (ShareId, ShareId)) {
        for id in [build, outer] {
            let Some(share) = self.shares.get_mut(&id) else { continue };
            share.actions -= 1;
            if share.actions == 0 {
                let name = share.name.clone();
                self.names.remove(&name);
                self.shares.remove(&id);
            }
        }
    }

    pub(super) fn virtual_time(&self, id: ShareId) -> u64 {
        self.shares.get(&id).map_or(0, |share| share.virtual_time)
    }

    /// Charges these shares for an assigned action.
    pub(super) fn charge(&mut self, (outer, build): (ShareId, ShareId), milli_cpus: u32) {
        let cost = u64::from(milli_cpus.max(1));
        let served = self.virtual_time(build);
        if let Some(share) = self.shares.get_mut(&build) {
            share.virtual_time += cost;
        }
        if let Some(share) = self.shares.get_mut(&outer) {
            share.clock = share.clock.max(served);
            self.clock = self.clock.max(share.virtual_time);
            share.virtual_time += cost;
        }
    }
}
