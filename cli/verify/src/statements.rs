//! Which of the bundles are statements by a trusted key about the artifact.

use std::time::SystemTime;

use kiln_attest::{Error, Key, Keys, State, Statement, Subject};

use crate::evidence::{Bundle, Evidence, Item, Target};
use crate::policy::Policy;

/// A statement by a trusted key about at least one target.
#[derive(Debug)]
pub(crate) struct Proven {
    /// Where it was found.
    pub(crate) name: String,
    pub(crate) statement: Statement,
    pub(crate) key: Key,
}

/// What became of the bundles.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    pub(crate) proven: Vec<Proven>,
    /// What somebody tampered with, or mixed up.
    pub(crate) wrong: Vec<String>,
    /// What was not used because nobody can tell whether it is true.
    pub(crate) unused: Vec<String>,
}

impl Statements {
    /// Those of a type about a target.
    pub(crate) fn about<'a>(&'a self, target: &'a Target, kind: &'a str) -> impl Iterator<Item = &'a Proven> {
        let fits =
            move |one: &&Proven| one.statement.predicate_type == kind && is_about(&one.statement, target).is_ok();
        self.proven.iter().filter(fits)
    }
}

/// Reads all bundles.
pub(crate) fn read(evidence: &Evidence, keys: &Keys, policy: &Policy, now: SystemTime) -> Statements {
    let mut statements = Statements::default();
    for bundle in &evidence.bundles {
        match open(bundle, evidence, keys, policy, now) {
            Ok(proven) => statements.proven.push(proven),
            Err(Refusal::Wrong(why)) => statements.wrong.push(format!("`{}`: {why}", bundle.name)),
            Err(Refusal::Unused(why)) => statements.unused.push(format!("`{}`: {why}", bundle.name)),
        }
    }
    statements
}

enum Refusal {
    Wrong(String),
    Unused(String),
}

fn open(
    bundle: &Bundle,
    evidence: &Evidence,
    keys: &Keys,
    policy: &Policy,
    now: SystemTime,
) -> Result<Proven, Refusal> {
    let refusal = |error: Error| match error {
        // Anybody may attach statements of their own to an image.
        Error::Untrusted { .. } => Refusal::Unused(error.to_string()),
        other => Refusal::Wrong(other.to_string()),
    };
    let envelope = kiln_attest::parse(&bundle.data).map_err(refusal)?;
    let (statement, key) = envelope.verify(keys).map_err(refusal)?;
    let time = |at: SystemTime| humantime::format_rfc3339_seconds(at);
    match key.state(now) {
        State::Valid => {}
        State::Early(created) => {
            return Err(Refusal::Unused(format!(
                "the key `{}` is valid from {} on, and the clock of this machine says {}: set the clock",
                key.public.id(),
                time(created),
                time(now)
            )));
        }
        State::Retired(_) if policy.allows_retired() => {}
        State::Retired(end) => {
            return Err(Refusal::Unused(format!(
                "the key `{}` was retired at {}; build the artifact again, or allow it with `retired-keys = \"allow\"` in the policy",
                key.public.id(),
                time(end)
            )));
        }
    }
    let mismatch = evidence.targets.iter().map(|target| is_about(&statement, target));
    let mut why = None;
    for one in mismatch {
        match one {
            Ok(()) => return Ok(Proven { name: bundle.name.clone(), statement, key: key.clone() }),
            Err(error) => why = why.or(Some(error)),
        }
    }
    Err(Refusal::Wrong(why.unwrap_or_else(|| "there is nothing that it could be about".to_owned())))
}

/// Whether a statement is about all of a target, and if that is whole, about nothing else.
fn is_about(statement: &Statement, target: &Target) -> Result<(), String> {
    let same = |subject: &Subject, item: &Item| {
        let equal = |(algorithm, hex): (&String, &String)| {
            subject.digest.get(algorithm).map(|stated| stated.eq_ignore_ascii_case(hex))
        };
        let equal: Vec<bool> = item.digests.iter().filter_map(equal).collect();
        !equal.is_empty() && equal.iter().all(|equal| *equal)
    };
    let named = |name: &str| statement.subject.iter().find(|subject| subject.name == name);
    for item in &target.items {
        let fits = |subject: &Subject| same(subject, item) && (!target.is_whole || subject.name == item.name);
        if !statement.subject.iter().any(fits) {
            let found = item.digests.iter().next_back().map(|(name, hex)| format!("{name}:{hex}")).unwrap_or_default();
            let stated = named(&item.name)
                .or_else(|| statement.subject.first().filter(|_| statement.subject.len() == 1))
                .and_then(|subject| subject.digest.iter().next())
                .map(|(name, hex)| format!("`{name}:{hex}`"))
                .unwrap_or_else(|| "other files".to_owned());
            return Err(format!("`{}` has the digest `{found}`, and the statement is about {stated}", item.name));
        }
    }
    if target.items.is_empty() {
        return Err(format!("`{}` has no files", target.name));
    }
    let is_here = |subject: &&Subject| target.items.iter().any(|item| item.name == subject.name);
    match statement.subject.iter().find(|subject| target.is_whole && !is_here(subject)) {
        Some(missing) => {
            Err(format!("`{}` is missing in `{}`: the statement is about it too", missing.name, target.name))
        }
        None => Ok(()),
    }
}
