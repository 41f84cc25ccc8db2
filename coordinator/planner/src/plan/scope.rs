//! Selects the steps that a command runs: `kiln build` everything except tests, `kiln test` the tests.
//!
//! Invariant: whatever a selected step needs is selected too.

use std::collections::BTreeSet;

use super::{Plan, Step, planner::Error};

/// The purpose of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// An ordinary build: test steps only if another step needs them.
    #[default]
    Build,
    /// The test steps and what they need; no artifacts.
    Tests,
    /// Every step.
    All,
}

/// Removes everything from `plan` that is outside `scope`. Its steps are sorted already.
pub(super) fn apply(plan: &mut Plan, scope: Scope) -> Result<(), Error> {
    let of_interest = |step: &Step| match scope {
        Scope::Build => !step.test,
        Scope::Tests => step.test,
        Scope::All => true,
    };
    let of_artifacts = plan.artifacts.iter().flat_map(|artifact| artifact.from.iter().cloned());
    let mut kept: BTreeSet<String> = if scope == Scope::Build { of_artifacts.collect() } else { BTreeSet::new() };
    // Sorted in order of need: going backwards, every step that needs another is seen before it.
    for step in plan.steps.iter().rev() {
        if of_interest(step) || kept.contains(&step.name) {
            kept.insert(step.name.clone());
            kept.extend(step.needs.iter().cloned());
        }
    }
    plan.steps.retain(|step| kept.contains(&step.name));
    if scope == Scope::Tests {
        plan.artifacts.clear();
        plan.gates.clear();
    }
    match scope {
        Scope::Tests if plan.steps.is_empty() => Err(Error::NoTests),
        Scope::Build if plan.steps.is_empty() && plan.artifacts.is_empty() => Err(Error::OnlyTests),
        _ => Ok(()),
    }
}
