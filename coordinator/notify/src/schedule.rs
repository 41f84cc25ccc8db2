//! Which call is made when: pure, with the time as a parameter.
//!
//! Invariants: each host has a few calls at a time, so that one that is slow does not delay the others; each call is made by one attempt at
//! a time.

use std::collections::{BTreeMap, BTreeSet};

/// Calls of one host, and of all, at a time.
pub(crate) const OF_HOST: usize = 2;
pub(crate) const AT_ONCE: usize = 16;

#[derive(Debug, Default)]
struct Host {
    running: usize,
    /// Time and key.
    waiting: BTreeSet<(u64, String)>,
}

/// The calls that are to be made. Times are milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    hosts: BTreeMap<String, Host>,
    running: usize,
}

impl Schedule {
    /// Adds a call that is due at a time.
    pub(crate) fn add(&mut self, host: String, key: String, due: u64) {
        self.hosts.entry(host).or_default().waiting.insert((due, key));
    }

    fn first(&self) -> Option<(&String, &(u64, String))> {
        let free = self.hosts.iter().filter(|(_, host)| host.running < OF_HOST);
        let firsts = free.filter_map(|(name, host)| Some((name, host.waiting.first()?)));
        firsts.min_by_key(|(_, (due, _))| *due).filter(|_| self.running < AT_ONCE)
    }

    /// The next call that begins now, as host and key.
    pub(crate) fn next(&mut self, now: u64) -> Option<(String, String)> {
        let (host, call) = self.first().filter(|(_, (due, _))| *due <= now)?;
        let (host, call) = (host.clone(), call.clone());
        let of = self.hosts.get_mut(&host)?;
        of.waiting.remove(&call);
        of.running += 1;
        self.running += 1;
        Some((host, call.1))
    }

    /// When the next call can begin, unless one ends before; `None` if there is none.
    pub(crate) fn due(&self) -> Option<u64> {
        self.first().map(|(_, (due, _))| *due)
    }

    /// An attempt has ended.
    pub(crate) fn ended(&mut self, host: &str) {
        self.running = self.running.saturating_sub(1);
        if let Some(of) = self.hosts.get_mut(host) {
            of.running = of.running.saturating_sub(1);
            if of.running == 0 && of.waiting.is_empty() {
                self.hosts.remove(host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_host_that_never_answers_delays_no_other() {
        let mut schedule = Schedule::default();
        (0..1_000).for_each(|number| schedule.add("slow".into(), format!("s{number:04}"), number));
        schedule.add("quick".into(), "q".into(), 5_000);
        let slow: Vec<_> = std::iter::from_fn(|| schedule.next(4_000)).collect();
        assert_eq!(slow.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), ["s0000", "s0001"]);
        assert_eq!(schedule.due(), Some(5_000));
        assert_eq!(schedule.next(5_000), Some(("quick".into(), "q".into())));
        schedule.ended("slow");
        assert_eq!(schedule.next(5_000).unwrap().1, "s0002");
    }

    proptest! {
        #[test]
        fn every_call_is_made_once_and_within_the_limits(calls in prop::collection::vec((0..20_u8, 0..50_u64), 0..200)) {
            let mut schedule = Schedule::default();
            for (number, (host, due)) in calls.iter().enumerate() {
                schedule.add(host.to_string(), number.to_string(), *due);
            }
            let (mut running, mut made): (Vec<String>, Vec<String>) = Default::default();
            for now in 0.. {
                while let Some((host, key)) = schedule.next(now) {
                    let due = calls[key.parse::<usize>().unwrap()].1;
                    prop_assert!(due <= now);
                    made.push(key);
                    running.push(host);
                    prop_assert!(running.len() <= AT_ONCE);
                    prop_assert!(running.iter().all(|one| running.iter().filter(|other| *other == one).count() <= OF_HOST));
                }
                if running.is_empty() && schedule.due().is_none() {
                    break;
                }
                running.drain(..running.len().min(3)).for_each(|host| schedule.ended(&host));
            }
            made.sort();
            made.dedup();
            prop_assert_eq!(made.len(), calls.len());
            prop_assert!(schedule.hosts.is_empty() || calls.is_empty());
        }
    }
}
