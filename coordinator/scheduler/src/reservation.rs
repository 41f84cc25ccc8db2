//! Reserves workers for classes that were passed over for long, so that large actions are not starved by small ones.

use super::Scheduler;
use super::queue::ClassId;
use super::types::Millis;

impl Scheduler {
    /// Whether a worker may be reserved for a class.
    pub(super) fn waits_for_reservation(&self, class: ClassId) -> bool {
        let class = &self.classes[class];
        class.reserved.is_none() && !class.requirements.opportunistic
    }

    /// Since when a class with waiting actions has not been served.
    fn passed_over_since(&self, class: ClassId) -> Option<Millis> {
        let class = &self.classes[class];
        let oldest = self.actions.get(*class.waiting.first()?)?;
        Some(oldest.submitted.max(class.served))
    }

    /// Reserves a worker for each class that was passed over for long: the one that is closest to being free. A class
    /// that is served slowly gets its turns and needs no reservation.
    pub(super) fn reserve(&mut self) {
        if self.classes.due(self.now).next().is_none() {
            return;
        }
        let mut long: Vec<(Millis, ClassId)> = Vec::new();
        for class in self.classes.due(self.now).collect::<Vec<_>>() {
            if self.classes[class].absent_since.is_some() {
                continue;
            }
            let since = if self.waits_for_reservation(class) { self.passed_over_since(class) } else { None };
            let due = since.map(|since| since.saturating_add(self.config.reserve_after));
            match since {
                Some(since) if due.is_some_and(|due| due <= self.now) => long.push((since, class)),
                _ => self.classes.set_timer(class, due),
            }
        }
        long.sort_unstable();
        for (_, class) in long {
            if !self.classes[class].held {
                self.reserve_for(class);
            }
        }
    }

    fn reserve_for(&mut self, class: ClassId) {
        self.workers.settle();
        let one = &self.classes[class];
        let wanted = one.requirements.capacity;
        let groups = one.groups.iter().filter_map(|group| self.workers.group(*group));
        let open = groups.flat_map(|group| group.open.iter().map(|(_, slot)| *slot));
        let nearest =
            open.min_by_key(|slot| (self.workers.get(*slot).map(|worker| wanted.minus(&worker.free())), *slot));
        let Some(slot) = nearest else { return };
        self.classes[class].reserved = Some(slot);
        self.classes.set_timer(class, None);
        self.workers.update(slot, |worker| worker.reserved_for = Some(class));
    }

    /// Moves timers that are too early to their time, until the next one is right.
    pub(super) fn settle_timers(&mut self) {
        while let Some((at, class)) = self.classes.next_timer(self.now) {
            let right = match self.classes[class].absent_since {
                Some(_) => Some(self.absent_deadline(class)),
                None => self.passed_over_since(class).map(|since| since.saturating_add(self.config.reserve_after)),
            };
            if right.is_some_and(|right| right <= at) {
                return;
            }
            self.classes.set_timer(class, right);
        }
    }
}
