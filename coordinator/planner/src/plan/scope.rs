//! Which of a plan's steps a command runs: `kiln build` everything but tests, `kiln test` the tests.
//!
//! Invariant: what a step that stays needs stays too, whatever it is.

use std::collections::BTreeSet;

use super::{Plan, Step, planner::Error};

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// An ordinary build: no test step, but where another step needs it.
    #[default]
    Build,
    /// The test steps and what they need; nothing is handed over.
    Tests,
    /// Every step.
    All,
}

/// Leaves in `plan` what `scope` asks for. Its steps are sorted already.
pub(super) fn apply(plan: &mut Plan, scope: Scope) -> Result<(), Error> {
    let of_interest = |step: &Step| match scope {
        Scope::Build => !step.test,
        Scope::Tests => step.test,
        Scope::All => true,
    };
    let of_artifacts = plan.artifacts.iter().flat_map(|artifact| artifact.from.iter().cloned());
    let mut kept: BTreeSet<String> = if scope == Scope::Build { of_artifacts.collect() } else { BTreeSet::new() };
    // Each comes after those it needs: from the last to the first, whoever needs a step was seen before it.
    for step in plan.steps.iter().rev() {
        if of_interest(step) || kept.contains(&step.name) {
            kept.insert(step.name.clone());
            kept.extend(step.needs.iter().cloned());
        }
    }
    plan.steps.retain(|step| kept.contains(&step.name));
    if scope == Scope::Tests {
        plan.artifacts.clear();
    }
    match scope {
        Scope::Tests if plan.steps.is_empty() => Err(Error::NoTests),
        Scope::Build if plan.steps.is_empty() => Err(Error::OnlyTests),
        _ => Ok(()),
    }
}
