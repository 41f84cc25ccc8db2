//! Which workers recently had which input directories.
//!
//! Invariant: an input is known only while a worker has it. What a worker had that is gone is removed bit by bit, so that the
//! loss of a worker with thousands of inputs does not hold up the farm.

use std::collections::VecDeque;

use fixedbitset::FixedBitSet;

use super::sharded::Sharded;

/// Number of input directories remembered of each worker.
const REMEMBERED_INPUTS: usize = 4096;
/// Number of holders above which they are kept as bits.
const MANY: usize = 256;
/// Inputs of workers that are gone that are removed at a time.
const REMOVED_AT_A_TIME: usize = 64;

/// A worker for as long as it is here. Numbers are reused once nothing refers to them.
pub(super) type HolderId = u32;
/// An input for as long as an action or a worker has it.
pub(super) type InputId = u32;

/// The workers that have an input.
#[derive(Debug)]
pub(super) enum Holders {
    /// In no order: looking through a few is faster than to keep them sorted.
    Few(Vec<u16>),
    Many {
        bits: FixedBitSet,
        count: usize,
    },
}

impl Holders {
    pub(super) fn contains(&self, holder: HolderId) -> bool {
        match self {
            Holders::Few(few) => u16::try_from(holder).is_ok_and(|holder| few.contains(&holder)),
            Holders::Many { bits, .. } => bits.contains(holder as usize),
        }
    }

    /// Whether it was not there.
    fn insert(&mut self, holder: HolderId) -> bool {
        if self.contains(holder) {
            return false;
        }
        match (self, u16::try_from(holder)) {
            (Holders::Few(few), Ok(holder)) if few.len() < MANY => few.push(holder),
            (Holders::Many { bits, count }, _) => {
                bits.grow_and_insert(holder as usize);
                *count += 1;
            }
            (few, _) => {
                let (mut bits, mut count) = (FixedBitSet::new(), 1);
                bits.grow_and_insert(holder as usize);
                few.for_each(|one| {
                    bits.grow_and_insert(one as usize);
                    count += 1;
                });
                *few = Holders::Many { bits, count };
            }
        }
        true
    }

    /// Removes one that is there.
    fn remove(&mut self, holder: HolderId) {
        match self {
            Holders::Few(few) => {
                if let Some(at) = few.iter().position(|one| HolderId::from(*one) == holder) {
                    few.swap_remove(at);
                }
            }
            Holders::Many { bits, count } => {
                bits.remove(holder as usize);
                *count -= 1;
                if *count < MANY / 2
                    && let Ok(few) = bits.ones().map(u16::try_from).collect()
                {
                    *self = Holders::Few(few);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Holders::Few(few) => few.len(),
            Holders::Many { count, .. } => *count,
        }
    }

    pub(super) fn for_each(&self, mut each: impl FnMut(HolderId)) {
        match self {
            Holders::Few(few) => few.iter().for_each(|one| each(HolderId::from(*one))),
            Holders::Many { bits, .. } => bits.ones().for_each(|one| each(one as HolderId)),
        }
    }
}

#[derive(Debug)]
struct Input {
    hash: u64,
    /// Number of actions that have it.
    actions: u32,
    holders: Holders,
}

#[derive(Debug)]
struct Holder {
    /// The worker's slot; `None` if it is gone.
    slot: Option<usize>,
    /// The inputs that it has, the oldest first.
    recent: VecDeque<InputId>,
}

/// All inputs that actions or workers have.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    by_hash: Sharded<u64, InputId>,
    inputs: Vec<Input>,
    free: Vec<InputId>,
    holders: Vec<Holder>,
    free_holders: Vec<HolderId>,
    /// Holders that are gone, with inputs that are to be removed.
    gone: Vec<HolderId>,
}

impl Inputs {
    /// A worker arrives, and has nothing.
    pub(super) fn arrives(&mut self, slot: usize) -> HolderId {
        let holder = Holder { slot: Some(slot), recent: VecDeque::new() };
        match self.free_holders.pop() {
            Some(id) => {
                self.holders[id as usize] = holder;
                id
            }
            None => {
                self.holders.push(holder);
                (self.holders.len() - 1) as HolderId
            }
        }
    }

    /// A worker is gone.
    pub(super) fn leaves(&mut self, id: HolderId) {
        self.holders[id as usize].slot = None;
        self.gone.push(id);
    }

    /// Removes some of what workers had that are gone.
    pub(super) fn tidy(&mut self) {
        let mut left = REMOVED_AT_A_TIME;
        while let Some(id) = self.gone.last().copied() {
            let Some(input) = self.holders[id as usize].recent.pop_front() else {
                self.holders[id as usize].recent = VecDeque::new();
                self.gone.pop();
                self.free_holders.push(id);
                continue;
            };
            self.remove(input, id);
            left -= 1;
            if left == 0 {
                return;
            }
        }
    }

    /// The inputs with these hashes, for one more action.
    pub(super) fn of(&mut self, hashes: &[u64]) -> Box<[InputId]> {
        let mut one = |hash: &u64| {
            let id = self.by_hash.get(hash).copied().unwrap_or_else(|| self.add(*hash));
            self.inputs[id as usize].actions += 1;
            id
        };
        hashes.iter().map(&mut one).collect()
    }

    /// An action with these inputs is over.
    pub(super) fn release(&mut self, ids: &[InputId]) {
        for id in ids {
            self.inputs[*id as usize].actions -= 1;
            self.forget_unused(*id);
        }
    }

    /// A worker gets these inputs; the oldest that it had are forgotten.
    pub(super) fn remember(&mut self, id: HolderId, ids: &[InputId]) {
        self.fetch(ids);
        let recent = &mut self.holders[id as usize].recent;
        for input in ids {
            if self.inputs[*input as usize].holders.insert(id) {
                if recent.len() == recent.capacity() {
                    // Doubled, but not beyond what can be needed.
                    let most = (REMEMBERED_INPUTS + ids.len()).saturating_sub(recent.len());
                    recent.reserve_exact(recent.len().clamp(16, most.max(16)));
                }
                recent.push_back(*input);
            }
        }
        while self.holders[id as usize].recent.len() > REMEMBERED_INPUTS {
            let Some(oldest) = self.holders[id as usize].recent.pop_front() else { return };
            self.remove(oldest, id);
        }
    }

    /// Reads the beginning of each list of holders. The lists of a large farm are in no cache of the processor, which waits for all of them
    /// at the same time if nothing depends on what it reads; else for one after the other, which is most of the time of an assignment.
    fn fetch(&self, ids: &[InputId]) {
        let first = |id: &InputId| match &self.inputs[*id as usize].holders {
            Holders::Few(few) => few.first().copied().unwrap_or_default(),
            Holders::Many { .. } => 0,
        };
        std::hint::black_box(ids.iter().map(first).fold(0, u16::wrapping_add));
    }

    fn add(&mut self, hash: u64) -> InputId {
        let input = Input { hash, actions: 0, holders: Holders::Few(Vec::new()) };
        let id = match self.free.pop() {
            Some(id) => {
                self.inputs[id as usize] = input;
                id
            }
            None => {
                self.inputs.push(input);
                (self.inputs.len() - 1) as InputId
            }
        };
        self.by_hash.insert(hash, id);
        id
    }

    fn remove(&mut self, id: InputId, holder: HolderId) {
        self.inputs[id as usize].holders.remove(holder);
        self.forget_unused(id);
    }

    fn forget_unused(&mut self, id: InputId) {
        let input = &mut self.inputs[id as usize];
        if input.actions == 0 && input.holders.len() == 0 {
            input.holders = Holders::Few(Vec::new());
            self.by_hash.remove(&input.hash);
            self.free.push(id);
        }
    }

    /// The holders of each of these inputs that somebody has.
    pub(super) fn holders<'a>(&'a self, ids: &'a [InputId]) -> impl Iterator<Item = &'a Holders> {
        ids.iter().map(|id| &self.inputs[*id as usize].holders).filter(|holders| holders.len() > 0)
    }

    /// The slot of a holder that is here.
    pub(super) fn slot(&self, id: HolderId) -> Option<usize> {
        self.holders[id as usize].slot
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    /// What one worker has, without an index.
    #[derive(Default)]
    struct Model {
        has: HashSet<u64>,
        order: VecDeque<u64>,
    }

    impl Model {
        fn remember(&mut self, hashes: &[u64]) {
            self.order.extend(hashes.iter().filter(|hash| self.has.insert(**hash)));
            while self.order.len() > REMEMBERED_INPUTS {
                self.has.remove(&self.order.pop_front().unwrap_or_default());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

        #[test]
        fn every_worker_has_what_it_was_given_last(
            ops in prop::collection::vec((0..400_usize, 0..20_000_u64, 1..400_u64, prop::bool::weighted(0.05)), 1..800),
        ) {
            let mut inputs = Inputs::default();
            let mut workers: BTreeMap<usize, (HolderId, Model)> = BTreeMap::new();
            for (slot, from, count, leaves) in ops {
                // Some inputs are at many workers.
                let hashes: Vec<u64> = (from..from + count).chain([1_000_000]).collect();
                let (id, model) = workers.entry(slot).or_insert_with(|| (inputs.arrives(slot), Model::default()));
                let ids = inputs.of(&hashes);
                inputs.remember(*id, &ids);
                inputs.release(&ids);
                model.remember(&hashes);
                if leaves {
                    inputs.leaves(*id);
                    workers.remove(&slot);
                }
                inputs.tidy();
            }
            while !inputs.gone.is_empty() {
                inputs.tidy();
            }
            let mut wanted: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            for (slot, (_, model)) in &workers {
                model.has.iter().for_each(|hash| wanted.entry(*hash).or_default().push(*slot));
            }
            prop_assert_eq!(inputs.by_hash.len(), wanted.len());
            for (hash, slots) in wanted {
                let mut found = Vec::new();
                let ids = inputs.of(&[hash]);
                for holders in inputs.holders(&ids) {
                    holders.for_each(|id| found.push(inputs.slot(id).expect("a worker that is here")));
                    prop_assert_eq!(holders.len(), found.len());
                }
                found.sort_unstable();
                prop_assert_eq!(found, slots);
            }
        }
    }
}
