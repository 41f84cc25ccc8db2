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
#[derive(Debug, Clone)]
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

    /// Adds one that is not there.
    fn insert(&mut self, holder: HolderId) {
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

/// Inputs that the same workers have. Those of one library come and go together, so they are noted together; once parted, they stay so.
type CohortId = u32;

#[derive(Debug)]
struct Cohort {
    holders: Holders,
    /// Number of its inputs.
    inputs: usize,
}

#[derive(Debug)]
struct Input {
    hash: u64,
    /// Number of actions that have it.
    actions: u32,
    cohort: CohortId,
}

/// An input in a list, with its cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    cohort: CohortId,
    input: InputId,
    at: usize,
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
    cohorts: Vec<Cohort>,
    free_cohorts: Vec<CohortId>,
    holders: Vec<Holder>,
    free_holders: Vec<HolderId>,
    /// Holders that are gone, with inputs that are to be removed.
    gone: Vec<HolderId>,
    /// Room for one list of places after another.
    places: Vec<Place>,
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
        let Some(id) = self.gone.last().copied() else { return };
        self.drop_oldest(id, REMOVED_AT_A_TIME);
        if self.holders[id as usize].recent.is_empty() {
            self.holders[id as usize].recent = VecDeque::new();
            self.gone.pop();
            self.free_holders.push(id);
        }
    }

    /// The inputs with these hashes, for one more action.
    pub(super) fn of(&mut self, hashes: &[u64]) -> Box<[InputId]> {
        // Nobody has those that are new.
        let mut cohort = None;
        let mut one = |hash: &u64| {
            let id = match self.by_hash.get(hash) {
                Some(id) => *id,
                None => {
                    let cohort = *cohort.get_or_insert_with(|| self.add_cohort(Holders::Few(Vec::new()), 0));
                    self.add(*hash, cohort)
                }
            };
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
        let mut places = self.places(ids);
        let mut last = None;
        places.retain(|Place { cohort, .. }| match last {
            Some((known, is_new)) if known == *cohort => is_new,
            _ => {
                let is_new = !self.cohorts[*cohort as usize].holders.contains(id);
                last = Some((*cohort, is_new));
                is_new
            }
        });
        for alike in places.chunk_by(|one, other| one.cohort == other.cohort) {
            let cohort = self.apart(alike);
            self.cohorts[cohort as usize].holders.insert(id);
        }
        places.sort_unstable_by_key(|place| place.at);
        let recent = &mut self.holders[id as usize].recent;
        if recent.capacity() - recent.len() < places.len() {
            // Doubled, but not beyond what can be needed.
            let most = (REMEMBERED_INPUTS + ids.len()).saturating_sub(recent.len());
            recent.reserve_exact(recent.len().clamp(16, most.max(16)).max(places.len()));
        }
        recent.extend(places.iter().map(|place| place.input));
        let beyond = recent.len().saturating_sub(REMEMBERED_INPUTS);
        self.places = places;
        self.drop_oldest(id, beyond);
    }

    /// A worker has the oldest of its inputs no more, up to so many.
    fn drop_oldest(&mut self, id: HolderId, count: usize) {
        let recent = &mut self.holders[id as usize].recent;
        let oldest: Vec<InputId> = recent.drain(..count.min(recent.len())).collect();
        let places = self.places(&oldest);
        for alike in places.chunk_by(|one, other| one.cohort == other.cohort) {
            let cohort = self.apart(alike);
            self.cohorts[cohort as usize].holders.remove(id);
            alike.iter().for_each(|place| self.forget_unused(place.input));
        }
        self.places = places;
    }

    /// These inputs by cohort, each once.
    fn places(&mut self, ids: &[InputId]) -> Vec<Place> {
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        let place = |(at, id): (usize, &InputId)| Place { cohort: self.inputs[*id as usize].cohort, input: *id, at };
        places.extend(ids.iter().enumerate().map(place));
        places.sort_unstable();
        places.dedup_by_key(|place| place.input);
        places
    }

    /// The cohort of exactly these inputs of one cohort: they are parted from the others, if there are any.
    fn apart(&mut self, alike: &[Place]) -> CohortId {
        let from = alike[0].cohort;
        let cohort = &mut self.cohorts[from as usize];
        if cohort.inputs == alike.len() {
            return from;
        }
        cohort.inputs -= alike.len();
        let holders = cohort.holders.clone();
        let to = self.add_cohort(holders, alike.len());
        for place in alike {
            self.inputs[place.input as usize].cohort = to;
        }
        to
    }

    fn add_cohort(&mut self, holders: Holders, inputs: usize) -> CohortId {
        let cohort = Cohort { holders, inputs };
        match self.free_cohorts.pop() {
            Some(id) => {
                self.cohorts[id as usize] = cohort;
                id
            }
            None => {
                self.cohorts.push(cohort);
                (self.cohorts.len() - 1) as CohortId
            }
        }
    }

    fn add(&mut self, hash: u64, cohort: CohortId) -> InputId {
        self.cohorts[cohort as usize].inputs += 1;
        let input = Input { hash, actions: 0, cohort };
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

    fn forget_unused(&mut self, id: InputId) {
        let Input { hash, actions, cohort } = self.inputs[id as usize];
        if actions > 0 {
            return;
        }
        let among = &mut self.cohorts[cohort as usize];
        if among.holders.len() > 0 {
            return;
        }
        among.inputs -= 1;
        if among.inputs == 0 {
            among.holders = Holders::Few(Vec::new());
            self.free_cohorts.push(cohort);
        }
        self.by_hash.remove(&hash);
        self.free.push(id);
    }

    /// The workers that have some of these inputs, with the number of inputs that each list is for.
    pub(super) fn holders(&self, ids: &[InputId]) -> Vec<(&Holders, usize)> {
        let mut cohorts: Vec<CohortId> = ids.iter().map(|id| self.inputs[*id as usize].cohort).collect();
        cohorts.sort_unstable();
        let alike = cohorts.chunk_by(|one, other| one == other);
        let lists = alike.map(|alike| (&self.cohorts[alike[0] as usize].holders, alike.len()));
        lists.filter(|(holders, _)| holders.len() > 0).collect()
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
                for (holders, times) in inputs.holders(&ids) {
                    prop_assert_eq!(times, 1);
                    holders.for_each(|id| found.push(inputs.slot(id).expect("a worker that is here")));
                    prop_assert_eq!(holders.len(), found.len());
                }
                found.sort_unstable();
                prop_assert_eq!(found, slots);
            }
        }
    }
}
