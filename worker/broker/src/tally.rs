//! What became of a step's calls.

use kiln_proto::{clock, made, v1};
use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::told::Facts;

/// Counts of one step's calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls whose result was known.
    pub hits: u64,
    /// Calls that ran as jobs of their own on the step's worker.
    pub compiled: u64,
    /// Calls that ran on other workers.
    pub elsewhere: u64,
    /// Calls that ran in the step, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Calls whose result was known and that were compiled again, by what came of it.
    pub verified: BTreeMap<&'static str, u64>,
    /// Whether one of those results was wrong.
    pub is_wrong: bool,
    /// What else is told at the end of the step.
    pub facts: Facts,
    /// How long the calls whose result was known took when they ran.
    pub saved: Duration,
    /// How long those that ran took, wherever they ran.
    pub ran: Duration,
    /// How much longer those that ran took because they ran as jobs of their own.
    pub overhead: Duration,
    /// Entries of Go's build cache that were asked for and there.
    pub go_hits: u64,
    /// Those that were not.
    pub go_misses: u64,
    /// The workers that made what the step was given.
    pub makers: BTreeMap<String, made::Times>,
    /// The same of other tools: entries that were asked for, by tool: those that were there, and those that were not.
    pub tools: BTreeMap<&'static str, (u64, u64)>,
}

impl Calls {
    /// As the farm tells it.
    pub fn to_wire(&self) -> v1::SplitCalls {
        v1::SplitCalls {
            hits: self.hits,
            compiled: self.compiled,
            elsewhere: self.elsewhere,
            refused: self.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            verified: self.verified.iter().map(|(verdict, count)| ((*verdict).to_owned(), *count)).collect(),
            missed: self.facts.missed.clone(),
            examples: self.facts.examples.iter().map(|(reason, words)| ((*reason).to_owned(), words.clone())).collect(),
            keys: None,
            saved: Some(clock::duration(self.saved)),
            ran: Some(clock::duration(self.ran)),
            go_hits: self.go_hits,
            go_misses: self.go_misses,
            makers: made::to_wire(&self.makers),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Calls>);

/// After this many calls that ran, it is clear whether splitting them pays.
const ENOUGH: u64 = 20;

impl Tally {
    pub(super) fn hit(&self, saved: Duration) {
        let mut calls = self.0.lock();
        calls.hits += 1;
        calls.saved += saved;
    }

    pub(super) fn compiled(&self, ran: Duration, overhead: Duration) {
        let mut calls = self.0.lock();
        calls.compiled += 1;
        calls.ran += ran;
        calls.overhead += overhead;
    }

    pub(super) fn elsewhere(&self, ran: Duration) {
        let mut calls = self.0.lock();
        calls.elsewhere += 1;
        calls.ran += ran;
    }

    /// How long a call of this step usually takes; none if none has run.
    pub(super) fn usual(&self) -> Option<Duration> {
        let calls = self.0.lock();
        calls.ran.checked_div(u32::try_from(calls.compiled + calls.elsewhere).ok()?)
    }

    pub(super) fn verified(&self, verdict: &'static str) {
        *self.0.lock().verified.entry(verdict).or_default() += 1;
    }

    pub(super) fn refused(&self, reason: &'static str) {
        *self.0.lock().refused.entry(reason).or_default() += 1;
    }

    /// Whether jobs of their own cost more than half of what the calls take, and few calls are known. On a busy machine both times grow.
    pub(super) fn costs_too_much(&self) -> bool {
        let calls = self.0.lock();
        calls.compiled >= ENOUGH && calls.hits < calls.compiled && calls.overhead * 2 > calls.ran
    }

    /// A `go` command has ended.
    pub(super) fn served_go(&self, served: &kiln_gocache::Served) {
        let mut calls = self.0.lock();
        calls.go_hits += served.hits;
        calls.go_misses += served.misses;
    }

    /// A tool has asked for an entry.
    pub(super) fn asked_by_tool(&self, tool: &'static str, was_there: bool) {
        let mut calls = self.0.lock();
        let (hits, misses) = calls.tools.entry(tool).or_default();
        *if was_there { hits } else { misses } += 1;
    }

    pub(super) fn calls(&self) -> Calls {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_ends_when_it_costs_too_much_and_nothing_is_known() {
        let ms = Duration::from_millis;
        let after = |hits, compiled, overhead| {
            let tally = Tally::default();
            (0..hits).for_each(|_| tally.hit(ms(100)));
            (0..compiled).for_each(|_| tally.compiled(ms(100), overhead));
            tally.costs_too_much()
        };
        assert!(after(0, 20, ms(51)));
        assert!(!after(0, 19, ms(90)), "too few to judge");
        assert!(!after(0, 20, ms(49)), "cheap enough");
        assert!(!after(30, 20, ms(90)), "most calls are known");
    }
}
