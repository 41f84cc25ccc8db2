//! A farm's own sample: which steps run again when their build has ended, and what comes of it.

use std::collections::HashMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1;

use super::again::{First, Reproducer};
use super::report;

/// Whether a sample of a farm has an action of a build: others in each build, so that all get their turn. `millionths` of all are.
pub fn chosen(action: &Digest, build: &str, millionths: u64) -> bool {
    let hash = DigestFunction::Sha256.digest(format!("{action} {build}").as_bytes()).hex();
    let number = u64::from_str_radix(hash.get(..12).unwrap_or_default(), 16).unwrap_or(u64::MAX);
    number % 1_000_000 < millionths
}

impl Reproducer {
    /// Runs those actions of artifacts again that are among `ran`, one after another and each once. Returns what was found of each artifact.
    pub async fn sample(
        &self,
        build: &str,
        artifacts: Vec<(String, Vec<Digest>)>,
        ran: &HashMap<Digest, First>,
    ) -> Vec<(String, v1::Reproducibility)> {
        let mut compared: HashMap<Digest, v1::ReproducedStep> = HashMap::new();
        let mut all = Vec::new();
        for (artifact, actions) in artifacts {
            let mut steps = Vec::new();
            for first in actions.iter().filter_map(|action| ran.get(action)) {
                let step = match compared.get(&first.digest) {
                    Some(step) => step.clone(),
                    None => self.again(first, |_| ()).await,
                };
                compared.insert(first.digest, step.clone());
                steps.push(step);
            }
            if steps.is_empty() {
                continue;
            }
            let sampled = u32::try_from(actions.len()).unwrap_or(u32::MAX);
            let found = v1::Reproducibility { sampled, ..report::summary(build, steps, false) };
            if found.different > 0 {
                let words = report::words(&found);
                tracing::warn!(artifact, build, words, "steps made something else when they ran again");
            }
            all.push((artifact, found));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_its_part_of_all_actions_and_others_in_another_build() {
        let action = |number: u32| DigestFunction::Sha256.digest(&number.to_le_bytes());
        let of = |build: &str| (0..10_000).filter(|number| chosen(&action(*number), build, 10_000)).collect::<Vec<_>>();
        let (one, other) = (of("a"), of("b"));
        assert!((50..200).contains(&one.len()), "{}", one.len());
        assert_ne!(one, other);
        assert!(!chosen(&action(1), "a", 0) && chosen(&action(1), "a", 1_000_000));
    }
}
