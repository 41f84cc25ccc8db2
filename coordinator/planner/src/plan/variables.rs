//! Variables that a plan's steps get from outside the project: the build's stamp, and variables from the command line.
//!
//! Invariant: a variable becomes part of a step's `env`, and so of its key, only if the step asked for it (a stamp) or
//! the caller set it.

use super::{Plan, check, words};

/// What a build knows about its commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The full commit; empty outside a repository.
    pub commit: String,
    /// Whether the tree differs from the commit.
    pub dirty: bool,
    /// The output of `git describe --tags --always`; empty outside a repository.
    pub describe: String,
}

/// Digits of the commit used as a version if there is none.
const COMMIT_DIGITS: usize = 12;

/// Gives the steps with `stamp = true` the variables `KILN_VERSION` (the plan's version, else the abbreviated commit,
/// else `0`), `KILN_COMMIT` (the full commit, empty outside a repository), `KILN_DESCRIBE` (the output of `git describe
/// --tags --always`) and `KILN_DIRTY` (`true` or `false`).
pub fn stamp(plan: &mut Plan, stamp: &Stamp) {
    let abbreviated: String = stamp.commit.chars().take(COMMIT_DIGITS).collect();
    let version = match &plan.version {
        Some(version) => version.clone(),
        None if abbreviated.is_empty() => "0".to_owned(),
        None => abbreviated,
    };
    for step in plan.steps.iter_mut().filter(|step| step.stamp) {
        step.env.insert("KILN_VERSION".to_owned(), version.clone());
        step.env.insert("KILN_COMMIT".to_owned(), stamp.commit.clone());
        step.env.insert("KILN_DESCRIBE".to_owned(), stamp.describe.clone());
        step.env.insert("KILN_DIRTY".to_owned(), stamp.dirty.to_string());
    }
}

/// A variable that the caller sets, as with `--env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The only step that gets it; `None` for every step.
    pub step: Option<String>,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl std::str::FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("invalid variable `{text}`; expected `NAME=VALUE` or `STEP:NAME=VALUE`");
        let (place, value) = text.split_once('=').ok_or_else(expected)?;
        let (step, name) = match place.split_once(':') {
            Some((step, name)) if !step.is_empty() => (Some(step.to_owned()), name),
            Some(_) => return Err(expected()),
            None => (None, place),
        };
        if name.is_empty() {
            return Err(expected());
        }
        Ok(Self { step, name: name.to_owned(), value: value.to_owned() })
    }
}

/// Why a variable cannot be set in a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// It is for a step that the plan does not have.
    #[error("`{step}:{name}` is set for step `{step}`, which the plan does not have: {hint}")]
    UnknownStep {
        /// The step.
        step: String,
        /// The variable.
        name: String,
        /// A suggestion: the nearest name, or all names.
        hint: String,
    },
    /// It would make the plan invalid.
    #[error(transparent)]
    Invalid(#[from] check::Error),
}

/// Sets the caller's variables. They take precedence over the steps' `env`; a variable for a single step takes
/// precedence over one for all.
pub fn set_variables(plan: &mut Plan, variables: &[Variable]) -> Result<(), VariableError> {
    let (single, every): (Vec<_>, Vec<_>) = variables.iter().partition(|variable| variable.step.is_some());
    for variable in every.into_iter().chain(single) {
        let chosen = |step: &str| variable.step.as_deref().is_none_or(|wanted| wanted == step);
        if !plan.steps.iter().any(|step| chosen(&step.name)) {
            let step = variable.step.clone().unwrap_or_default();
            let hint = words::hint(&step, plan.steps.iter().map(|step| step.name.as_str()));
            return Err(VariableError::UnknownStep { step, name: variable.name.clone(), hint });
        }
        for step in plan.steps.iter_mut().filter(|step| chosen(&step.name)) {
            step.env.insert(variable.name.clone(), variable.value.clone());
            check::check_variables(step)?;
        }
    }
    Ok(())
}
