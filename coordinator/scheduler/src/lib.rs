//! The scheduler: who runs what, and when. A pure step from state and event to effects; time is a parameter.
//!
//! Invariants, tested with generated event sequences: no action has two live leases, none is lost, attempts are
//! bounded, a worker's capacity is never exceeded, an action never runs where its platform does not match, and an
//! action that can run never waits next to free capacity, unless workers of an earlier run may bring it.

mod actions;
mod away;
mod choice;
mod classes;
mod inputs;
mod lease_ids;
mod lifecycle;
mod orphans;
mod placement;
mod queue;
mod reservation;
mod returning;
mod sharded;
mod shares;
mod slab;
mod types;
mod waiting;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use actions::{Action, Actions};
use away::Away;
use choice::Tally;
use classes::Classes;
use inputs::Inputs;
use lease_ids::LeaseIds;
use orphans::Orphans;
use queue::ActionId;
use returning::Returning;
use shares::Shares;
pub use types::{
    ActionKey, Capacity, Config, Effect, Event, Failure, LeaseId, Millis, Outcome, Pool, QueueView, Requirements,
    RunningLease, Submission, Wait, WaiterId, WorkerId, WorkerOffer, WorkerView,
};
use workers::Workers;

/// Its order is random: no decision may depend on it.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug)]
struct Lease {
    slot: usize,
    key: ActionKey,
    reserved: Capacity,
    /// The action that it runs; `None` if that was cancelled or nobody asked for it.
    action: Option<ActionId>,
    /// When it is cancelled unless someone asks for its action.
    orphan_until: Option<Millis>,
}

/// The scheduler's whole state.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    match_from: Millis,
    actions: Actions,
    leases: Map<LeaseId, Lease>,
    orphans: Orphans,
    classes: Classes,
    workers: Workers,
    inputs: Inputs,
    /// Workers that left and are expected back.
    away: Away,
    returning: Returning,
    shares: Shares,
    lease_ids: LeaseIds,
    tally: Tally,
    /// Leases that ended in this step; reported last, after the consequences.
    ended: Vec<LeaseId>,
    effects: Vec<Effect>,
    now: Millis,
}

impl Scheduler {
    /// An empty farm at time `now`.
    pub fn new(mut config: Config, now: Millis) -> Self {
        let returning = Returning::new(&config, now);
        let away = Away::remembered(std::mem::take(&mut config.remembered));
        Scheduler {
            match_from: now.saturating_add(config.match_grace),
            lease_ids: LeaseIds::new(config.lease_seed, config.lease_epoch),
            config,
            actions: Actions::default(),
            leases: Map::default(),
            orphans: Orphans::default(),
            classes: Classes::default(),
            workers: Workers::default(),
            inputs: Inputs::default(),
            away,
            returning,
            shares: Shares::default(),
            tally: Tally::default(),
            ended: Vec::new(),
            effects: Vec::new(),
            now,
        }
    }

    /// Handles an event and returns the resulting effects. Time never goes back: an earlier `now` counts as the last
    /// one.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        match event {
            Event::Submit(submission) => self.submit(submission),
            Event::Leave(waiter) => self.leave(waiter),
            Event::WorkerJoined(offer) => self.joined(offer),
            Event::WorkerDisconnected(worker) => self.disconnected(&worker),
            Event::WorkerGone(worker) => self.gone(&worker, true),
            Event::Started(lease) => self.started(lease),
            Event::Finished { worker, lease, outcome } => self.finished(&worker, lease, outcome),
            Event::Drain { worker, on } => self.drain(&worker, on),
            Event::Tick => {}
        }
        self.expire();
        self.effects.extend(self.ended.drain(..).map(Effect::LeaseEnded));
        std::mem::take(&mut self.effects)
    }

    /// When the shell must send [`Event::Tick`], unless another event comes first.
    pub fn next_deadline(&self) -> Option<Millis> {
        let lost = self.workers.next_lost().map(|(at, _)| at);
        let timer = self.classes.next_timer(self.now).map(|(at, _)| at);
        let deadlines = [lost, self.orphans.next(), self.returning.deadline(), timer];
        // A deadline in the past waits for something other than time.
        deadlines.into_iter().flatten().filter(|at| *at > self.now).min()
    }

    /// All workers, by name.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.workers
            .iter()
            .map(|(_, worker)| WorkerView {
                worker: worker.id.clone(),
                capacity: worker.terms.capacity,
                used: worker.used,
                running: worker.leases.len(),
                draining: worker.draining,
                connected: worker.lost_at.is_none(),
            })
            .collect()
    }

    /// Waiting actions by requirements.
    pub fn queues(&self, now: Millis) -> Vec<QueueView> {
        let view = |class| {
            let class = &self.classes[class];
            let oldest = class.waiting.first().and_then(|id| self.actions.get(*id));
            QueueView {
                properties: class.requirements.properties.clone(),
                tenant: class.requirements.tenant.clone(),
                queued: class.waiting.len(),
                oldest_ms: oldest.map_or(0, |action| now.saturating_sub(action.submitted)),
                wait: oldest.and_then(|action| self.wait_of(&action.key)),
            }
        };
        self.classes.busy_in_order().into_iter().map(view).collect()
    }

    /// The callers that wait for an action.
    pub fn waiters(&self, key: &ActionKey) -> Vec<WaiterId> {
        self.action(key).map(|action| action.waiters.clone()).unwrap_or_default()
    }

    /// Whether an action has a live lease.
    pub fn is_running(&self, key: &ActionKey) -> bool {
        self.action(key).is_some_and(|action| action.lease.is_some())
    }

    fn action(&self, key: &ActionKey) -> Option<&Action> {
        self.actions.get(self.actions.with_key(key)?)
    }
}
