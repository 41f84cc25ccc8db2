//! Several languages in one plan.
//!
//! Invariant: the steps of each are those of a plan in that language alone, but for their names, so that both find each other's results.

use std::collections::BTreeSet;

use super::Detected;

/// Gives steps and artifacts names of their own: those of the first language keep theirs, those of another begin with it.
pub(super) fn set_apart(all: &mut [Detected]) {
    let mut artifacts: BTreeSet<String> = BTreeSet::new();
    for (at, found) in all.iter_mut().enumerate() {
        let language = found.language.split(' ').next().unwrap_or_default().to_owned();
        if at > 0 {
            let renamed = |name: &str| format!("{language}-{name}");
            for step in &mut found.steps {
                step.name = renamed(&step.name);
                step.needs.iter_mut().for_each(|need| *need = renamed(need));
            }
            found.artifacts.iter_mut().flat_map(|artifact| &mut artifact.from).for_each(|from| *from = renamed(from));
        }
        for artifact in &mut found.artifacts {
            if artifacts.contains(&artifact.name) {
                artifact.name = free(&artifacts, &format!("{}-{language}", artifact.name));
            }
            artifacts.insert(artifact.name.clone());
        }
    }
}

/// The name, or else the name with the first number that makes it a new one.
fn free(taken: &BTreeSet<String>, name: &str) -> String {
    let numbered = (2..).map(|number: usize| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default()
}
