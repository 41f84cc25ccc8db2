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
    /// complete are cache hits. `has_root`: it runs in an image, which is imported again.
    pub(super) fn of(
        &mut self,
        step: Place,
        needed: Vec<Place>,
        has_root: bool,
        message: &str,
    ) -> Result<Vec<Place>, Unsuccessful> {
        let count = self.counts.entry(step).or_default();
        *count += 1;
        if *count > MAX_RERUNS || (needed.is_empty() && !has_root) {
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
        assert!(reruns.of((0, 0), Vec::new(), false, "gone").is_err(), "no step makes the sources again");
        for _ in 0..MAX_RERUNS {
            assert_eq!(reruns.of((1, 0), vec![(0, 0)], false, "gone").unwrap(), [(0, 0)]);
        }
        assert!(reruns.of((1, 0), vec![(0, 0)], false, "gone").unwrap_err().message.contains("evicted"));
        assert_eq!(reruns.of((2, 0), Vec::new(), true, "gone").unwrap(), [], "its image is imported again");
        assert!(reruns.of((1, 1), vec![(0, 0)], false, "gone").is_ok(), "another shard counts for itself");
    }
}
