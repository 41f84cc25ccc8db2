//! All actions that somebody waits for, and who waits for each.

use super::inputs::InputId;
use super::queue::{ActionId, ClassId, Position};
use super::sharded::Sharded;
use super::slab::Slab;
use super::types::{ActionKey, LeaseId, Millis, WaiterId};

#[derive(Debug)]
pub(super) struct Action {
    pub(super) key: ActionKey,
    pub(super) class: ClassId,
    pub(super) position: Position,
    pub(super) inputs: Box<[InputId]>,
    pub(super) waiters: Vec<WaiterId>,
    pub(super) attempts: u32,
    /// Its live lease; `None` while it waits.
    pub(super) lease: Option<LeaseId>,
    pub(super) submitted: Millis,
    /// When it started waiting this time.
    pub(super) queued: Millis,
    /// How long it waits while no worker could run it.
    pub(super) wait_limit: Millis,
    /// The slot of the worker that failed it last.
    pub(super) avoid: Option<usize>,
    /// Whether it is given up when its lease is lost.
    pub(super) once: bool,
}

/// All actions.
#[derive(Debug, Default)]
pub(super) struct Actions {
    all: Slab<Action>,
    keys: Sharded<ActionKey, ActionId>,
    waiters: Sharded<WaiterId, ActionId>,
}

impl Actions {
    pub(super) fn get(&self, id: ActionId) -> Option<&Action> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: ActionId) -> Option<&mut Action> {
        self.all.get_mut(id)
    }

    pub(super) fn with_key(&self, key: &ActionKey) -> Option<ActionId> {
        self.keys.get(key).copied()
    }

    /// Whether it has no lease.
    pub(super) fn waits(&self, id: ActionId) -> bool {
        self.all.get(id).is_some_and(|action| action.lease.is_none())
    }

    /// Adds an action with its first waiter.
    pub(super) fn add(&mut self, action: Action) -> ActionId {
        let (key, first) = (action.key.clone(), action.waiters.first().copied());
        let id = self.all.insert(action);
        self.keys.insert(key, id);
        if let Some(waiter) = first {
            self.waiters.insert(waiter, id);
        }
        id
    }

    /// Adds a waiter to an action.
    pub(super) fn join(&mut self, id: ActionId, waiter: WaiterId) {
        self.waiters.insert(waiter, id);
        if let Some(action) = self.all.get_mut(id) {
            action.waiters.push(waiter);
        }
    }

    /// Removes a waiter; returns what it waited for.
    pub(super) fn leave(&mut self, waiter: WaiterId) -> Option<ActionId> {
        let id = self.waiters.remove(&waiter)?;
        self.all.get_mut(id)?.waiters.retain(|known| *known != waiter);
        Some(id)
    }

    /// Removes an action, with its waiters.
    pub(super) fn remove(&mut self, id: ActionId) -> Option<Action> {
        let action = self.all.remove(id)?;
        self.keys.remove(&action.key);
        for waiter in &action.waiters {
            self.waiters.remove(waiter);
        }
        Some(action)
    }
}
