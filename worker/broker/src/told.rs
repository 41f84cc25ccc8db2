//! What users are told about a step's calls: counts while it runs, and at its end which calls missed and why, what was refused in the
//! compiler's own words, and the keys of all results that it used.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_calls::manifest::Difference;
use kiln_proto::digest::Digest;
use kiln_proto::v1;
use kiln_proto::v1::call_miss::Why;
use parking_lot::Mutex;

/// Maximum number of calls that missed of which users are told the reason. Where most calls miss, most have the same.
const MAX_MISSED: usize = 32;
/// Maximum bytes of words about a refused call.
const MAX_WORDS: usize = 200;

/// What is to be told at the end of a step.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Facts>);

/// What is told at the end of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Calls whose result was not known, the first of them.
    pub missed: Vec<v1::CallMiss>,
    /// The first refused call of each reason.
    pub examples: BTreeMap<&'static str, String>,
    /// The keys of the results that the step has used or made, sorted.
    pub keys: Vec<[u8; 32]>,
}

/// Why nothing was known of a call.
#[derive(Debug, Clone, Default)]
pub(super) enum Miss {
    /// It was never made before.
    #[default]
    First,
    /// It was, when this was otherwise.
    Differs(Difference),
    /// Its result is gone.
    Gone,
}

impl Told {
    /// A call whose result was not known.
    pub(super) fn missed(&self, source: &Path, miss: &Miss) {
        let (why, path) = match miss {
            Miss::First => (Why::First, None),
            Miss::Gone => (Why::Gone, None),
            Miss::Differs(difference) => {
                let why = match difference {
                    Difference::Changed(_) => Why::Changed,
                    Difference::Missing(_) => Why::Missing,
                    Difference::Appeared(_) => Why::Appeared,
                    Difference::Listing(_) => Why::Listing,
                };
                (why, Some(difference.path()))
            }
        };
        let text = |path: &Path| path.strip_prefix(kiln_executor::BUILD).unwrap_or(path).to_string_lossy().into_owned();
        let mut facts = self.0.lock();
        if facts.missed.len() < MAX_MISSED {
            let path = path.map(text).unwrap_or_default();
            facts.missed.push(v1::CallMiss { source: text(source), why: why as i32, path });
        }
    }

    /// A call that was refused, in words.
    pub(super) fn refused(&self, reason: &'static str, words: impl FnOnce() -> String) {
        self.0.lock().examples.entry(reason).or_insert_with(|| words().chars().take(MAX_WORDS).collect());
    }

    /// The step has used or made the result under this key.
    pub(super) fn used(&self, key: &Digest) {
        self.0.lock().keys.push(key.hash);
    }

    /// Everything, for the end.
    pub(super) fn facts(&self) -> Facts {
        let mut facts = self.0.lock().clone();
        facts.keys.sort_unstable();
        facts
    }
}

impl Facts {
    /// The list of keys, one a line.
    pub fn list(&self) -> Vec<u8> {
        self.keys.iter().flat_map(|key| format!("{}\n", hex::encode(key)).into_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_keys_does_not_depend_on_the_order_of_calls() {
        let key = |byte: u8| Digest { hash: [byte; 32], ..kiln_proto::digest::DigestFunction::Sha256.digest(b"") };
        let list = |order: &[u8]| {
            let told = Told::default();
            order.iter().for_each(|byte| told.used(&key(*byte)));
            told.facts().list()
        };
        assert_eq!(list(&[3, 1, 2, 1]), list(&[1, 1, 2, 3]));
        assert_ne!(list(&[1, 2]), list(&[1, 1, 2]));
    }

    #[test]
    fn only_so_much_is_told() {
        let told = Told::default();
        for number in 0..100 {
            told.missed(Path::new(&format!("/build/{number}.c")), &Miss::First);
            told.refused("link", || "x".repeat(1000));
        }
        let facts = told.facts();
        assert_eq!((facts.missed.len(), facts.missed[1].source.as_str()), (MAX_MISSED, "1.c"));
        assert_eq!(facts.examples["link"].len(), MAX_WORDS);
    }
}
