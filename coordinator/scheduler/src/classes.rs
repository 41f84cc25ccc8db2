//! All classes: which have waiting actions, and when each must be looked at because time has passed.
//!
//! Invariant: a class is kept as long as it has actions; a timer is never later than the time at which its class must be looked at.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::Map;
use super::queue::{ActionId, Class, ClassId, Position};
use super::shares::Shares;
use super::slab::{Id, Slab};
use super::types::{Millis, Requirements};

/// Number of classes above which those without actions are removed.
const IDLE_CLASSES: usize = 4096;

/// All classes.
#[derive(Debug)]
pub(super) struct Classes {
    all: Slab<Class>,
    of: Map<Arc<Requirements>, ClassId>,
    /// Those with waiting actions, in no particular order.
    busy: Vec<ClassId>,
    timers: BTreeSet<(Millis, ClassId)>,
    /// Those of which it must be seen whether a worker takes their actions.
    unchecked: BTreeSet<ClassId>,
    /// Those whose actions no worker takes.
    absent: BTreeSet<ClassId>,
    /// Number of actions that avoid a worker.
    avoiding: usize,
    /// Number of classes at which those without actions are removed next.
    sweep_at: usize,
}

impl Default for Classes {
    fn default() -> Self {
        Classes {
            all: Slab::default(),
            of: Map::default(),
            busy: Vec::new(),
            timers: BTreeSet::new(),
            unchecked: BTreeSet::new(),
            absent: BTreeSet::new(),
            avoiding: 0,
            sweep_at: IDLE_CLASSES,
        }
    }
}

impl Index<ClassId> for Classes {
    type Output = Class;

    fn index(&self, id: ClassId) -> &Class {
        self.all.get(id).unwrap_or_else(|| unreachable!("a class is kept as long as something refers to it"))
    }
}

impl IndexMut<ClassId> for Classes {
    fn index_mut(&mut self, id: ClassId) -> &mut Class {
        self.all.get_mut(id).unwrap_or_else(|| unreachable!("a class is kept as long as something refers to it"))
    }
}

impl Classes {
    pub(super) fn of(&self, requirements: &Requirements) -> Option<ClassId> {
        self.of.get(requirements).copied()
    }

    pub(super) fn add(&mut self, requirements: &Requirements) -> ClassId {
        let requirements = Arc::new(requirements.clone());
        let id = self.all.insert(Class::new(requirements.clone()));
        self.of.insert(requirements, id);
        id
    }

    /// Whether there are so many that those without actions should be removed.
    pub(super) fn are_many(&self) -> bool {
        self.all.len() >= self.sweep_at
    }

    /// Removes those without actions; returns them.
    pub(super) fn sweep(&mut self) -> Vec<(ClassId, Class)> {
        let idle: Vec<ClassId> = self.all.iter().filter(|(_, class)| class.actions == 0).map(|(id, _)| id).collect();
        let removed: Vec<_> = idle.into_iter().filter_map(|id| Some((id, self.all.remove(id)?))).collect();
        for (id, class) in &removed {
            self.of.remove(&class.requirements);
            self.unchecked.remove(id);
        }
        self.sweep_at = (2 * self.all.len()).max(IDLE_CLASSES);
        removed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ClassId, &mut Class)> {
        self.all.iter_mut()
    }

    /// Those with waiting actions, in no particular order.
    pub(super) fn busy(&self) -> &[ClassId] {
        &self.busy
    }

    /// Those with waiting actions, in order of creation.
    pub(super) fn busy_in_order(&self) -> Vec<ClassId> {
        let mut busy = self.busy.clone();
        busy.sort_unstable();
        busy
    }

    /// Adds a waiting action to its class.
    pub(super) fn insert(&mut self, class: ClassId, id: ActionId, position: Option<Position>, shares: &Shares) {
        let next = self.busy.len();
        let one = &mut self[class];
        match position {
            Some(position) => one.insert(id, position, shares),
            None => one.insert_avoiding(id),
        }
        let is_new = one.place.is_none();
        if is_new {
            one.place = Some(next);
            self.busy.push(class);
        }
        self.avoiding += usize::from(position.is_none());
        if is_new || self.absent.contains(&class) {
            self.unchecked.insert(class);
        }
    }

    /// Removes a waiting action from its class; whether that was the last one.
    pub(super) fn remove(&mut self, class: ClassId, id: ActionId, position: Position) -> bool {
        let one = &mut self[class];
        let before = one.avoiding.len();
        if !one.remove(id, position) {
            return false;
        }
        let avoiding = before - one.avoiding.len();
        let place = if one.waiting.is_empty() { one.place.take() } else { None };
        self.avoiding -= avoiding;
        let Some(place) = place else { return false };
        self.busy.swap_remove(place);
        if let Some(moved) = self.busy.get(place).copied() {
            self[moved].place = Some(place);
        }
        self.present(class);
        self.set_timer(class, None);
        true
    }

    /// The actions that avoid a worker: by class, then by age.
    pub(super) fn avoiding(&self) -> Vec<ActionId> {
        if self.avoiding == 0 {
            return Vec::new();
        }
        self.busy_in_order().into_iter().flat_map(|class| self[class].avoiding.iter().copied()).collect()
    }

    /// Records that a worker takes a class's actions, or that none wait; whether it was otherwise.
    pub(super) fn present(&mut self, class: ClassId) -> bool {
        self[class].absent_since.take().is_some() && self.absent.remove(&class)
    }

    /// Records that no worker takes a class's actions; returns since when.
    pub(super) fn is_absent(&mut self, class: ClassId, now: Millis) -> Millis {
        if self.absent.insert(class) {
            self[class].absent_since = Some(now);
            // It is not known when the first action must be given up.
            self[class].first_timeout = 0;
        }
        self[class].absent_since.unwrap_or(now)
    }

    /// Wants to see again whether a worker takes this class's actions.
    pub(super) fn check(&mut self, class: ClassId) {
        self.unchecked.insert(class);
    }

    /// Wants to see again whether a worker may come that takes the actions of the classes without one.
    pub(super) fn check_absent(&mut self) {
        self.unchecked.extend(self.absent.iter().copied());
    }

    /// Those that must be checked, because something has changed or because time has passed.
    pub(super) fn take_unchecked(&mut self, now: Millis) -> BTreeSet<ClassId> {
        let mut unchecked = std::mem::take(&mut self.unchecked);
        if !self.absent.is_empty() {
            unchecked.extend(self.due(now).filter(|class| self.absent.contains(class)));
        }
        unchecked
    }

    /// Sets the time when a class must be looked at.
    pub(super) fn set_timer(&mut self, class: ClassId, at: Option<Millis>) {
        let before = std::mem::replace(&mut self[class].timer, at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, class));
        }
        if let Some(at) = at {
            self.timers.insert((at, class));
        }
    }

    /// Those whose timers have passed.
    pub(super) fn due(&self, now: Millis) -> impl Iterator<Item = ClassId> {
        self.timers.range(..=(now, Id::LAST)).map(|(_, class)| *class)
    }

    /// The first timer that has not passed.
    pub(super) fn next_timer(&self, now: Millis) -> Option<(Millis, ClassId)> {
        self.timers.range((now.checked_add(1)?, Id::FIRST)..).next().copied()
    }
}
