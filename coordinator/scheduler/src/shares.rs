//! Fair shares: a virtual time for each tenant, and for each build of a tenant.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng, "Start-time Fair Queuing", 1996): who has used least goes
//! first; one that comes anew starts at the present virtual time, so that idling saves nothing up.

use std::collections::HashMap;

/// A tenant, or a build of one.
pub(super) type ShareId = u64;

#[derive(Debug, Default)]
struct Share {
    virtual_time: u64,
    /// Actions that hold this share open.
    actions: usize,
    /// Virtual time of the share inside it that was served last.
    clock: u64,
    name: (ShareId, String),
}

/// Every open share.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: HashMap<ShareId, Share>,
    names: HashMap<(ShareId, String), ShareId>,
    next: ShareId,
    clock: u64,
}

impl Shares {
    /// Opens a tenant's and a build's share for one more action.
    pub(super) fn open(&mut self, tenant: &str, build: &str) -> (ShareId, ShareId) {
        let tenant = self.open_one(0, tenant, self.clock);
        let clock = self.shares.get(&tenant).map_or(0, |share| share.clock);
        (tenant, self.open_one(tenant, build, clock))
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

    /// One action less; a share without any is forgotten.
    pub(super) fn close(&mut self, (tenant, build): (ShareId, ShareId)) {
        for id in [build, tenant] {
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

    /// An action of these shares was given a worker.
    pub(super) fn charge(&mut self, (tenant, build): (ShareId, ShareId), milli_cpus: u32) {
        let cost = u64::from(milli_cpus.max(1));
        let served = self.virtual_time(build);
        if let Some(share) = self.shares.get_mut(&build) {
            share.virtual_time += cost;
        }
        if let Some(share) = self.shares.get_mut(&tenant) {
            share.clock = share.clock.max(served);
            self.clock = self.clock.max(share.virtual_time);
            share.virtual_time += cost;
        }
    }
}
