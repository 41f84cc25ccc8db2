//! Which worker an action goes to: of those with room for it, the one with most of its inputs, else the least loaded.
//!
//! Invariant: the choice is what a comparison of all workers would yield, with the lowest slot among equals.

use std::cmp::Reverse;

use super::Scheduler;
use super::inputs::{HolderId, Holders, InputId};
use super::queue::{Class, ClassId};
use super::workers::Worker;

/// Holders of inputs that are counted one by one. Inputs that more workers have are looked up for each worker that is considered.
const COUNTED: usize = 8192;

/// How good a choice is: its inputs there, the share of its CPU that is free, its slot.
type Score = (usize, u64, Reverse<usize>);

/// Counts by holder, for one choice after another.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Vec<u32>,
    counted: Vec<HolderId>,
}

impl Tally {
    fn add(&mut self, holders: &Holders, times: usize) {
        holders.for_each(|holder| {
            if self.counts.len() <= holder as usize {
                self.counts.resize(holder as usize + 1, 0);
            }
            if self.counts[holder as usize] == 0 {
                self.counted.push(holder);
            }
            self.counts[holder as usize] += times as u32;
        });
    }

    /// The highest count.
    fn most(&self) -> u32 {
        self.counted.iter().map(|holder| self.counts[*holder as usize]).max().unwrap_or(0)
    }

    /// Those that were counted so often.
    fn counted(&self, times: u32) -> impl Iterator<Item = HolderId> {
        self.counted.iter().copied().filter(move |holder| self.counts[*holder as usize] == times)
    }

    fn clear(&mut self) {
        for holder in self.counted.drain(..) {
            self.counts[holder as usize] = 0;
        }
    }
}

impl Scheduler {
    /// The best worker with room for an action with these inputs, other than the one that it avoids.
    pub(super) fn best_worker(&mut self, class: ClassId, inputs: &[InputId], avoid: Option<usize>) -> Option<usize> {
        self.workers.settle();
        let mut common = self.inputs.holders(inputs);
        common.sort_unstable_by_key(|(holders, _)| Reverse(holders.len()));
        let mut counted = 0;
        while let Some((rarest, times)) = common.last() {
            counted += rarest.len();
            if counted > COUNTED {
                break;
            }
            self.tally.add(rarest, *times);
            common.pop();
        }
        let in_common: usize = common.iter().map(|(_, times)| times).sum();
        let having = |worker: &Worker| -> usize {
            common.iter().filter(|(holders, _)| holders.contains(worker.holder)).map(|(_, times)| times).sum()
        };
        let one = &self.classes[class];
        let mut best: Option<Score> = None;
        for count in (1..=self.tally.most()).rev() {
            for slot in self.tally.counted(count).filter_map(|holder| self.inputs.slot(holder)) {
                let worker = self.workers.get(slot).filter(|worker| Some(slot) != avoid && is_open(one, class, worker));
                let score = |worker: &Worker| (count as usize + having(worker), worker.free_share(), Reverse(slot));
                best = best.max(worker.map(score));
            }
            // Those that were counted less often have fewer.
            if best.is_some_and(|(most, ..)| most >= count as usize + in_common) {
                break;
            }
        }
        self.tally.clear();
        // The others have none of the inputs that were counted.
        if best.is_none_or(|(count, ..)| count <= in_common) {
            best = best.max(self.least_loaded(class, avoid, in_common, having));
        }
        best.map(|(.., Reverse(slot))| slot)
    }

    /// The best of all workers, if none has more than `most` of the action's inputs; `having` tells how many one has.
    fn least_loaded(
        &self,
        class: ClassId,
        avoid: Option<usize>,
        most: usize,
        having: impl Fn(&Worker) -> usize,
    ) -> Option<Score> {
        let one = &self.classes[class];
        let fits = |slot: usize| {
            let worker = self.workers.get(slot)?;
            let fits = Some(slot) != avoid && is_open(one, class, worker);
            fits.then(|| (having(worker), worker.free_share(), Reverse(slot)))
        };
        let mut best = one.reserved.and_then(fits);
        for group in one.groups.iter().filter_map(|group| self.workers.group(*group)) {
            let enough = group.terms.share(one.requirements.capacity.milli_cpus);
            for (Reverse(share), slot) in &group.open {
                // Whoever comes later in the group has no more room, and no lower slot.
                if *share < enough || best.is_some_and(|best| best >= (most, *share, Reverse(*slot))) {
                    break;
                }
                best = best.max(fits(*slot));
            }
        }
        best
    }

    /// Whether only the worker that failed it last could run this action.
    pub(super) fn only_choice(&self, class: ClassId, avoid: Option<usize>) -> bool {
        let taking: usize =
            self.classes[class].groups.iter().filter_map(|id| Some(self.workers.group(*id)?.taking)).sum();
        let avoided = avoid
            .and_then(|slot| self.workers.get(slot))
            .filter(|worker| worker.takes_leases() && self.classes[class].groups.contains(&worker.group));
        taking == usize::from(avoided.is_some())
    }

    /// Whether a worker that this action avoids has room for it.
    pub(super) fn avoided_has_room(&self, class: ClassId, avoid: usize) -> bool {
        let one = &self.classes[class];
        self.workers.get(avoid).is_some_and(|worker| is_open(one, class, worker))
    }
}

/// Whether a worker has room for an action of this class, and is not reserved for another.
fn is_open(one: &Class, class: ClassId, worker: &Worker) -> bool {
    worker.takes_leases()
        && worker.reserved_for.is_none_or(|reserved| reserved == class)
        && worker.free().holds(&one.requirements.capacity)
        && one.groups.contains(&worker.group)
}
