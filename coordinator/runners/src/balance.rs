//! How many shards a step has, and which tests each of them: from what its tests took before.
//!
//! Invariant: the same runs lead to the same shares, and shares change only where that gains much. They are part of what a shard's action is made of, so
//! shares that followed every measurement would leave nothing in the cache.

use std::collections::BTreeMap;

/// How long a shard should take.
const GOAL_MS: u64 = 30_000;
/// Most shards that are chosen without being asked for.
const MAX_AUTO: u32 = 64;
/// Most tests that are remembered, and bytes of their names. The longest are; others are dealt out in turn.
const MAX_UNITS: usize = 5_000;
const MAX_BYTES: usize = 200 << 10;
/// What a run counts for: the rest is what was known before.
const SHARE: u64 = 4;
/// A test that so many runs did not have is forgotten.
const MAX_UNSEEN: u32 = 10;

/// What a user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// So many.
    Count(u32),
    /// What suits how long all tests take.
    Auto,
}

/// A test, or as many as its runner only runs together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// What it takes.
    pub ms: u64,
    /// The shard that had it, from 1.
    pub shard: u32,
    /// Whether it was given to that shard; otherwise it came there in turn.
    pub given: bool,
    /// Runs since it was last seen.
    pub unseen: u32,
}

/// What is remembered of a step's tests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Learned {
    /// The number of shards; 0: nothing is known.
    pub shards: u32,
    /// How long all tests take together.
    pub total_ms: u64,
    /// The tests that can be given to one shard or another, by name.
    pub units: BTreeMap<String, Unit>,
}

impl Learned {
    /// Adds a run of all tests: what those took that can be given to a shard, and in which they were; and what all of them took together.
    pub fn ran(&mut self, seen: BTreeMap<String, (u64, u32)>, total_ms: u64) {
        let average = |old: u64, new: u64| (old.saturating_mul(SHARE.saturating_sub(1)).saturating_add(new)) / SHARE;
        self.total_ms = if self.total_ms == 0 { total_ms } else { average(self.total_ms, total_ms) };
        self.units.values_mut().for_each(|unit| unit.unseen = unit.unseen.saturating_add(1));
        for (name, (ms, shard)) in seen {
            let known = self.units.get(&name).map_or(ms, |unit| average(unit.ms, ms));
            let unit = self.units.entry(name).or_default();
            (unit.ms, unit.unseen, unit.shard) = (known, 0, shard);
        }
        self.units.retain(|_, unit| unit.unseen < MAX_UNSEEN);
        let (mut names, mut bytes) = (0_usize, 0_usize);
        let mut longest: Vec<(u64, String)> = self.units.iter().map(|(name, unit)| (unit.ms, name.clone())).collect();
        longest.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        for (_, name) in longest {
            (names, bytes) = (names.saturating_add(1), bytes.saturating_add(name.len()).saturating_add(8));
            if names > MAX_UNITS || bytes > MAX_BYTES {
                self.units.remove(&name);
            }
        }
    }

    /// Decides about a run of other sources than the last ones: with the same, another decision would only lose what is cached.
    pub fn settle(&mut self, wanted: Wanted) {
        let shards = match wanted {
            Wanted::Count(count) => count.max(1),
            Wanted::Auto => self.suitable(),
        };
        if shards != self.shards || self.is_lopsided() {
            self.shards = shards;
            self.deal();
        }
    }

    /// The tests that are given to shards. The others are dealt out in turn.
    pub fn shares(&self) -> Vec<(u32, String)> {
        let given = self.units.iter().filter(|(_, unit)| unit.given);
        given.map(|(name, unit)| (unit.shard, name.clone())).collect()
    }

    /// A power of two, and another one only if the shards would otherwise be far too long or short.
    fn suitable(&self) -> u32 {
        let least = u32::try_from(self.total_ms / GOAL_MS).unwrap_or(u32::MAX).clamp(1, MAX_AUTO);
        let most =
            if self.units.is_empty() { least } else { least.min(u32::try_from(self.units.len()).unwrap_or(least)) };
        let ideal = most.checked_ilog2().map_or(1, |power| 1 << power);
        let each = self.total_ms.checked_div(u64::from(self.shards)).unwrap_or(self.total_ms);
        let fits = self.shards > 0
            && self.shards.is_power_of_two()
            && each <= GOAL_MS * 5 / 2
            && (self.shards == 1 || each >= GOAL_MS * 3 / 5);
        if fits { self.shards } else { ideal }
    }

    /// Whether one shard takes much longer than the others.
    fn is_lopsided(&self) -> bool {
        let mut loads = vec![0_u64; self.shards as usize];
        for unit in self.units.values() {
            if let Some(load) = (unit.shard as usize).checked_sub(1).and_then(|at| loads.get_mut(at)) {
                *load = load.saturating_add(unit.ms);
            }
        }
        let all = loads.iter().fold(0_u64, |all, load| all.saturating_add(*load));
        let mean = all.checked_div(u64::from(self.shards)).unwrap_or(all);
        loads
            .into_iter()
            .max()
            .is_some_and(|longest| longest > mean.saturating_add(mean / 4).saturating_add(GOAL_MS / 6))
    }

    /// Gives each test, the longest first, to the shard that has least to do.
    fn deal(&mut self) {
        let mut order: Vec<(&String, &mut Unit)> = self.units.iter_mut().collect();
        order.sort_by(|(one_name, one), (other_name, other)| {
            other.ms.cmp(&one.ms).then_with(|| one_name.cmp(other_name))
        });
        let mut loads: std::collections::BTreeSet<(u64, u32)> =
            (1..=self.shards.max(1)).map(|shard| (0, shard)).collect();
        for (_, unit) in order {
            let Some((load, shard)) = loads.pop_first() else { return };
            (unit.shard, unit.given) = (shard, true);
            // What takes no time is spread as well.
            loads.insert((load.saturating_add(unit.ms.max(1)), shard));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A run in which each shard has what it was given, and the first one the rest.
    fn run(learned: &mut Learned, units: &[(&str, u64)]) {
        let given: BTreeMap<String, u32> = learned.shares().into_iter().map(|(shard, name)| (name, shard)).collect();
        let seen = units.iter().map(|(name, ms)| ((*name).to_owned(), (*ms, given.get(*name).copied().unwrap_or(1))));
        learned.ran(seen.collect(), units.iter().map(|(_, ms)| ms).sum());
    }

    fn learned(units: &[(&str, u64)], wanted: Wanted) -> Learned {
        let mut learned = Learned::default();
        learned.settle(wanted);
        run(&mut learned, units);
        learned.settle(wanted);
        learned
    }

    fn of(learned: &Learned, wanted: u32) -> Vec<String> {
        learned.shares().into_iter().filter(|(shard, _)| *shard == wanted).map(|(_, name)| name).collect()
    }

    #[test]
    fn long_tests_are_kept_apart() {
        let learned = learned(&[("a", 100_000), ("b", 60_000), ("c", 50_000), ("d", 1)], Wanted::Count(2));
        assert_eq!(
            (of(&learned, 1), of(&learned, 2)),
            (vec!["a".to_owned(), "d".into()], vec!["b".to_owned(), "c".into()])
        );
    }

    #[test]
    fn nothing_is_given_while_turns_are_even_enough() {
        let mut learned = Learned::default();
        learned.settle(Wanted::Count(2));
        learned.ran([("a".to_owned(), (9_000, 1)), ("b".to_owned(), (6_000, 2))].into(), 15_000);
        let before = learned.clone();
        learned.settle(Wanted::Count(2));
        assert_eq!((&learned, learned.shares()), (&before, Vec::new()));
        // With another number, all are.
        learned.settle(Wanted::Count(3));
        assert_eq!(learned.shares(), [(1, "a".to_owned()), (2, "b".to_owned())]);
    }

    #[test]
    fn the_number_of_shards_follows_slowly_what_all_tests_take() {
        let names: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
        let tests = |ms: u64| names.iter().map(|name| (name.as_str(), ms)).collect::<Vec<_>>();
        // 300 s in shards of 30 s to 60 s.
        let mut learned = learned(&tests(3_000), Wanted::Auto);
        assert_eq!(learned.shards, 8);
        let before = learned.shares();
        for ms in [4_000, 3_500, 2_000, 3_000, 6_000] {
            run(&mut learned, &tests(ms));
            learned.settle(Wanted::Auto);
            assert_eq!((learned.shards, learned.shares()), (8, before.clone()), "{ms}");
        }
        for _ in 0..20 {
            run(&mut learned, &tests(20));
            learned.settle(Wanted::Auto);
        }
        assert_eq!(learned.shards, 1);
        assert_eq!(self::learned(&[("one", 600_000)], Wanted::Auto).shards, 1, "it cannot be divided");
    }

    #[test]
    fn a_new_test_changes_no_share_and_a_long_one_all() {
        let mut learned = learned(&[("a", 50_000), ("b", 50_000)], Wanted::Count(2));
        let before = learned.shares();
        run(&mut learned, &[("a", 50_000), ("b", 50_000), ("c", 5_000)]);
        learned.settle(Wanted::Count(2));
        assert_eq!(learned.shares(), before, "it is dealt out in turn");
        run(&mut learned, &[("a", 50_000), ("b", 50_000), ("d", 90_000)]);
        learned.settle(Wanted::Count(2));
        let shares: BTreeMap<String, u32> = learned.shares().into_iter().map(|(shard, name)| (name, shard)).collect();
        assert!(shares["a"] == shares["b"] && shares["a"] != shares["d"], "{shares:?}");
    }

    #[test]
    fn tests_that_are_gone_are_forgotten_and_the_list_is_bounded() {
        let mut learned = learned(&[("gone", 5), ("stays", 5)], Wanted::Count(2));
        for _ in 0..MAX_UNSEEN {
            run(&mut learned, &[("stays", 5)]);
        }
        assert_eq!(learned.units.keys().collect::<Vec<_>>(), ["stays"]);
        let many = (0..2 * MAX_UNITS as u64).map(|number| (format!("t{number}"), (number, 1))).collect();
        learned.ran(many, 1);
        assert!(
            learned.units.len() <= MAX_UNITS
                && learned.units.contains_key("t9999")
                && !learned.units.contains_key("t1")
        );
    }

    proptest! {
        #[test]
        fn shares_are_within_the_shards_and_the_same_for_the_same_runs(
            runs in prop::collection::vec(prop::collection::btree_map("[a-z]{1,2}", (0..100_000_u64, 1..20_u32), 0..20), 1..6), shards in 1..20_u32, auto in any::<bool>(),
        ) {
            let wanted = if auto { Wanted::Auto } else { Wanted::Count(shards) };
            let build = || {
                let mut learned = Learned::default();
                for run in &runs {
                    learned.settle(wanted);
                    learned.ran(run.clone(), run.values().map(|(ms, _)| ms).sum());
                }
                learned.settle(wanted);
                learned
            };
            let learned = build();
            prop_assert_eq!(&learned, &build());
            prop_assert!(learned.shards >= 1 && (!auto || learned.shards.is_power_of_two()));
            prop_assert!(auto || learned.shards == shards);
            let again = { let mut again = learned.clone(); again.settle(wanted); again };
            prop_assert_eq!(again.shares(), learned.shares());
        }
    }
}
