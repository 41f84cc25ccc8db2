//! Which call is made when: pure, with the time as a parameter.
//!
//! Invariants: each receiver has a few calls at a time, so that one that is slow does not delay the others, and however many receivers projects
//! name, some places remain for the operator's; each call is made by one attempt at a time.

use std::collections::{BTreeMap, BTreeSet};

/// Calls of one receiver, of those that projects name, and of all, at a time.
const OF_ONE: usize = 2;
const OF_PROJECTS: usize = 12;
const AT_ONCE: usize = 16;

/// Who is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Receiver {
    /// A hook of the operator's, by its name.
    Hook(String),
    /// What projects name, by scheme, host and port.
    Host(String),
}

impl Receiver {
    fn is_of_projects(&self) -> bool {
        matches!(self, Self::Host(_))
    }
}

#[derive(Debug, Default)]
struct Calls {
    running: usize,
    /// Time and key.
    waiting: BTreeSet<(u64, String)>,
}

/// The calls that are to be made. Times are milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    receivers: BTreeMap<Receiver, Calls>,
    running: usize,
    of_projects: usize,
}

impl Schedule {
    /// Adds a call that is due at a time.
    pub(crate) fn add(&mut self, receiver: Receiver, key: String, due: u64) {
        self.receivers.entry(receiver).or_default().waiting.insert((due, key));
    }

    fn first(&self) -> Option<(&Receiver, &(u64, String))> {
        let has_place = |receiver: &Receiver| !receiver.is_of_projects() || self.of_projects < OF_PROJECTS;
        let free = self.receivers.iter().filter(|(name, calls)| calls.running < OF_ONE && has_place(name));
        let firsts = free.filter_map(|(name, calls)| Some((name, calls.waiting.first()?)));
        firsts.min_by_key(|(_, (due, _))| *due).filter(|_| self.running < AT_ONCE)
    }

    /// The next call that begins now, and its receiver.
    pub(crate) fn next(&mut self, now: u64) -> Option<(Receiver, String)> {
        let (receiver, call) = self.first().filter(|(_, (due, _))| *due <= now)?;
        let (receiver, call) = (receiver.clone(), call.clone());
        let calls = self.receivers.get_mut(&receiver)?;
        calls.waiting.remove(&call);
        calls.running += 1;
        self.running += 1;
        self.of_projects += usize::from(receiver.is_of_projects());
        Some((receiver, call.1))
    }

    /// When the next call can begin, unless one ends before; `None` if there is none.
    pub(crate) fn due(&self) -> Option<u64> {
        self.first().map(|(_, (due, _))| *due)
    }

    /// An attempt has ended.
    pub(crate) fn ended(&mut self, receiver: &Receiver) {
        self.running = self.running.saturating_sub(1);
        self.of_projects = self.of_projects.saturating_sub(usize::from(receiver.is_of_projects()));
        if let Some(calls) = self.receivers.get_mut(receiver) {
            calls.running = calls.running.saturating_sub(1);
            if calls.running == 0 && calls.waiting.is_empty() {
                self.receivers.remove(receiver);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(name: &str) -> Receiver {
        Receiver::Host(name.to_owned())
    }

    #[test]
    fn a_host_that_never_answers_delays_no_other() {
        let mut schedule = Schedule::default();
        (0..1_000).for_each(|number| schedule.add(host("slow"), format!("s{number:04}"), number));
        schedule.add(host("quick"), "q".into(), 5_000);
        let slow: Vec<_> = std::iter::from_fn(|| schedule.next(4_000)).collect();
        assert_eq!(slow.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), ["s0000", "s0001"]);
        assert_eq!(schedule.due(), Some(5_000));
        assert_eq!(schedule.next(5_000), Some((host("quick"), "q".into())));
        schedule.ended(&host("slow"));
        assert_eq!(schedule.next(5_000).unwrap().1, "s0002");
    }

    #[test]
    fn however_many_hosts_projects_name_the_operators_hooks_are_called() {
        let mut schedule = Schedule::default();
        (0..100).for_each(|number| schedule.add(host(&format!("h{number}")), format!("{number}"), 1));
        let begun = std::iter::from_fn(|| schedule.next(2)).count();
        assert_eq!((begun, schedule.due()), (OF_PROJECTS, None));
        schedule.add(Receiver::Hook("chat".into()), "c".into(), 2);
        assert_eq!(schedule.next(2).unwrap().1, "c");
        schedule.ended(&host("h0"));
        assert!(schedule.next(2).is_some_and(|(receiver, _)| receiver.is_of_projects()));
    }

    proptest! {
        #[test]
        fn every_call_is_made_once_and_within_the_limits(calls in prop::collection::vec((0..20_u8, 0..50_u64), 0..200)) {
            let mut schedule = Schedule::default();
            for (number, (name, due)) in calls.iter().enumerate() {
                let name = name.to_string();
                let receiver = if name.len() > 1 { Receiver::Hook(name) } else { Receiver::Host(name) };
                schedule.add(receiver, number.to_string(), *due);
            }
            let (mut running, mut made): (Vec<Receiver>, Vec<String>) = Default::default();
            for now in 0.. {
                while let Some((receiver, key)) = schedule.next(now) {
                    let due = calls[key.parse::<usize>().unwrap()].1;
                    prop_assert!(due <= now);
                    made.push(key);
                    running.push(receiver);
                    prop_assert!(running.len() <= AT_ONCE);
                    prop_assert!(running.iter().filter(|one| one.is_of_projects()).count() <= OF_PROJECTS);
                    prop_assert!(running.iter().all(|one| running.iter().filter(|other| *other == one).count() <= OF_ONE));
                }
                if running.is_empty() && schedule.due().is_none() {
                    break;
                }
                running.drain(..running.len().min(3)).for_each(|receiver| schedule.ended(&receiver));
            }
            made.sort();
            made.dedup();
            prop_assert_eq!(made.len(), calls.len());
            prop_assert!(schedule.receivers.is_empty());
        }
    }
}
