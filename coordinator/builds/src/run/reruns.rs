//! If a step's inputs were evicted from the store while the build ran, runs the steps that made them again, a few
//! times.

use std::collections::HashMap;

use super::Unsuccessful;
use super::steps::Place;

/// How often a step's inputs are made again.
const MAX_RERUNS: u32 = 2;

/// How often each step's inputs were made again.
#[derive(Debug, Default)]
pub(super) struct Reruns {
    counts: HashMap<Place, u32>,
}

impl Reruns {
    /// The steps that must run again so that the step finds its inputs: all that it needs. Results that are still
    /// complete are cache hits.
    pub(super) fn of(&mut self, step: Place, needed: Vec<Place>, message: &str) -> Result<Vec<Place>, Unsuccessful> {
        let count = self.counts.entry(step).or_default();
        *count += 1;
        if *count > MAX_RERUNS || needed.is_empty() {
            let words = format!("blobs of the build's inputs were evicted from the store ({message}); build again");
            return Err(Unsuccessful::farms(words));
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_given_its_inputs_again_but_not_for_ever() {
        let mut reruns = Reruns::default();
        assert!(reruns.of((0, 0), Vec::new(), "gone").is_err(), "no step makes the sources again");
        for _ in 0..MAX_RERUNS {
            assert_eq!(reruns.of((1, 0), vec![(0, 0)], "gone").unwrap(), [(0, 0)]);
        }
        assert!(reruns.of((1, 0), vec![(0, 0)], "gone").unwrap_err().message.contains("evicted"));
        assert!(reruns.of((1, 1), vec![(0, 0)], "gone").is_ok(), "another shard counts for itself");
    }
}
