//! Times of files as instructions move them.

use std::sync::Arc;

use kiln_trees::root::{Time, Times};

/// Lists of one root; more are merged.
const MOST: usize = 16;

/// When the nodes of a root were modified: lists over lists, each with what one instruction changed, so that an instruction copies nothing
/// of those before it.
#[derive(Debug, Clone, Default)]
pub struct Dates(Vec<Arc<Times>>);

impl From<Arc<Times>> for Dates {
    fn from(times: Arc<Times>) -> Self {
        Self(vec![times])
    }
}

impl From<Times> for Dates {
    fn from(times: Times) -> Self {
        Arc::new(times).into()
    }
}

impl PartialEq for Dates {
    fn eq(&self, other: &Self) -> bool {
        self.flat() == other.flat()
    }
}

impl Eq for Dates {}

impl Dates {
    /// When a node was modified, if that is known.
    pub fn get(&self, path: &[u8]) -> Option<Time> {
        self.0.iter().rev().find_map(|times| times.0.get(path)).copied()
    }

    /// All times in one list.
    pub fn flat(&self) -> Arc<Times> {
        match &self.0[..] {
            [] => Arc::default(),
            [only] => only.clone(),
            [lowest, others @ ..] => merged(Times::clone(lowest), others).into(),
        }
    }

    /// All times as a blob.
    pub fn encode(&self) -> Vec<u8> {
        self.flat().encode()
    }

    /// The times of a root after a layer with these was applied.
    pub(crate) fn under(&self, over: Times) -> Self {
        if over.0.is_empty() {
            return self.clone();
        }
        let mut all = self.0.clone();
        if all.len() >= MOST {
            // The lowest is a base's, and longer than all others together.
            let others = all.split_off(1);
            all.push(merged(Times::default(), &others).into());
        }
        all.push(over.into());
        Self(all)
    }

    /// The times of what is at `from`, moved to `to`, as [`moved`].
    pub(crate) fn moved(&self, from: &[u8], to: &[u8]) -> Times {
        let mut found = Times::default();
        self.0.iter().for_each(|times| found.0.extend(moved(times, from, to).0));
        found
    }

    /// What differs from the times before an instruction.
    pub(crate) fn since(&self, before: &Self) -> Times {
        let same = self.0.iter().zip(&before.0).take_while(|(one, other)| Arc::ptr_eq(one, other)).count();
        let all = merged(Times::default(), self.0.get(same..).unwrap_or_default());
        Times(all.0.into_iter().filter(|(path, time)| before.get(path) != Some(*time)).collect())
    }
}

fn merged(lowest: Times, others: &[Arc<Times>]) -> Times {
    let entries = others.iter().flat_map(|times| times.0.iter().map(|(path, time)| (path.clone(), *time)));
    let mut all = lowest;
    all.0.extend(entries);
    all
}

/// The times of what is at `from`, moved to `to`. Both are paths below the root, with `/` between names only.
pub fn moved(times: &Times, from: &[u8], to: &[u8]) -> Times {
    let mut found = Times::default();
    let below = |path: &[u8]| -> Option<Vec<u8>> {
        if from.is_empty() {
            return Some(path.to_vec());
        }
        match path.strip_prefix(from)? {
            [] => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.to_vec()),
            _ => None,
        }
    };
    // What is below a path follows it in order, though not everything that follows is below it.
    for (path, time) in times.0.range(from.to_vec()..) {
        if !path.starts_with(from) {
            break;
        }
        let Some(rest) = below(path) else { continue };
        let path = match (to.is_empty(), rest.is_empty()) {
            (_, true) => to.to_vec(),
            (true, false) => rest,
            (false, false) => [to, &b"/"[..], &rest].concat(),
        };
        found.0.insert(path, *time);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_copied_keeps_its_times_where_it_goes() {
        let at = |seconds| Time { seconds, nanos: 0 };
        let times = Times(
            [("a", 1), ("a/b", 2), ("a-c", 3), ("a/b/d", 4), ("b", 5)].map(|(path, s)| (path.into(), at(s))).into(),
        );
        let copied = moved(&times, b"a", b"x/y");
        let expected = [("x/y", 1), ("x/y/b", 2), ("x/y/b/d", 4)].map(|(path, s)| (path.into(), at(s)));
        assert_eq!(copied, Times(expected.into()));
        let all = moved(&times, b"", b"z");
        assert_eq!(all.0.len(), 5);
        assert_eq!(all.0[&b"z/a-c"[..]], at(3));
    }

    fn list() -> impl Strategy<Value = Times> {
        let entry = ("[ab](/[ab]){0,2}", 0..4_i64);
        proptest::collection::vec(entry, 0..6).prop_map(|entries| {
            let time = |seconds| Time { seconds, nanos: 0 };
            Times(entries.into_iter().map(|(path, seconds)| (path.into_bytes(), time(seconds))).collect())
        })
    }

    proptest! {
        #[test]
        fn lists_over_lists_are_what_one_list_would_be(
            base in list(), lists in proptest::collection::vec(list(), 0..2 * MOST), at in 0..2 * MOST,
        ) {
            let (mut dates, mut plain) = (Dates::from(base.clone()), base);
            let mut before = (dates.clone(), plain.clone());
            for (number, over) in lists.into_iter().enumerate() {
                if number == at {
                    before = (dates.clone(), plain.clone());
                }
                plain.0.extend(over.0.clone());
                dates = dates.under(over);
                prop_assert!(dates.0.len() <= MOST + 1);
            }
            prop_assert_eq!(&*dates.flat(), &plain);
            prop_assert_eq!(dates.moved(b"a", b"x"), moved(&plain, b"a", b"x"));
            for path in plain.0.keys() {
                prop_assert_eq!(dates.get(path), plain.0.get(path).copied());
            }
            let changed = plain.0.iter().filter(|(path, time)| before.1.0.get(*path) != Some(*time));
            let changed = Times(changed.map(|(path, time)| (path.clone(), *time)).collect());
            prop_assert_eq!(dates.since(&before.0), changed);
        }
    }
}
