//! The secrets of a build, held in memory while it runs.
//!
//! Invariant: values arrive with a submission and leave only in a request for an action. Nothing here can be written to
//! disk: after a restart the coordinator has no secrets, and the client that still follows the build sends them again.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_planner::plan::{ArtifactKind, Gate, Plan, Step};
use kiln_proto::root::secret_name;
use kiln_proto::secret;
use kiln_proto::v1::Secret;
use tokio::sync::watch;

/// How long a step of a resumed build waits for its secrets.
const RESUBMIT_WINDOW: Duration = Duration::from_secs(60);
/// Maximum secrets of one build.
const MAX_SECRETS: usize = 100;
/// Maximum bytes of all of them together: a worker searches output for each in many encodings.
const MAX_BYTES: usize = 128 << 10;

/// Secrets that are not those that are wanted.
#[derive(Debug, PartialEq, Eq)]
pub enum Inexact {
    /// This one was not given.
    Missing(String),
    /// Nothing asks for this one.
    Unknown(String),
}

/// The secrets of a build.
#[derive(Debug, Default)]
pub struct Secrets {
    known: watch::Sender<BTreeMap<String, Secret>>,
}

impl Secrets {
    /// Checks and takes these secrets; an error says why one is not acceptable.
    pub fn new(given: Vec<Secret>) -> Result<Self, String> {
        if given.len() > MAX_SECRETS {
            return Err(format!("the build was given {} secrets; expected at most {MAX_SECRETS}", given.len()));
        }
        let bytes: usize = given.iter().map(|one| one.value.len()).sum();
        if bytes > MAX_BYTES {
            return Err(format!("the build was given secrets of {bytes} bytes; expected at most {MAX_BYTES} in all"));
        }
        for one in &given {
            if let Some(problem) = secret::problem(&one.value) {
                return Err(format!("the secret `{}` {problem}", one.name));
            }
        }
        let secrets = Self::default();
        secrets.give(given);
        Ok(secrets)
    }

    fn give(&self, given: Vec<Secret>) {
        self.known.send_modify(|known| known.extend(given.into_iter().map(|one| (one.name.clone(), one))));
    }

    /// Adds the secrets of another submission of the same build.
    pub fn take(&self, other: Self) {
        self.known.send_modify(|known| known.append(&mut other.known.send_replace(BTreeMap::new())));
    }

    /// Drops secrets that no step of the plan needs; an error names a secret that a step needs and that was not given.
    pub fn fit(&self, plan: &Plan) -> Result<(), String> {
        let by_dockerfiles = || {
            plan.artifacts.iter().filter_map(|artifact| match &artifact.kind {
                ArtifactKind::Dockerfile(dockerfile) => Some((&artifact.name, &dockerfile.secrets)),
                _ => None,
            })
        };
        let of_gates = || plan.gates.iter().filter_map(Gate::command).map(|command| &command.step);
        let steps = || plan.steps.iter().chain(of_gates());
        let asked = |name: &String| {
            steps().any(|step| step.secrets.contains(name))
                || by_dockerfiles().any(|(_, ids)| ids.iter().any(|id| secret_name(id) == *name))
        };
        self.known.send_modify(|known| known.retain(|name, _| asked(name)));
        for (artifact, names) in by_dockerfiles() {
            if let Some(name) = names.iter().find(|id| !self.known.borrow().contains_key(&secret_name(id))) {
                return Err(format!(
                    "artifact `{artifact}` asks for the secret `{name}`, which the build was not given: set the variable `{name}` \
                     where `kiln build` runs, or pass `--secret {name}=FILE`"
                ));
            }
        }
        steps().try_for_each(|step| match self.missing(step) {
            Some(name) => Err(format!(
                "step `{}` asks for the secret `{name}`, which the build was not given: set the variable `{name}` where `kiln build` \
                 runs, or pass `--secret {name}=FILE`",
                step.name
            )),
            None => Ok(()),
        })
    }

    /// The secrets of a step that are present.
    pub fn of(&self, step: &Step) -> Vec<Secret> {
        let known = self.known.borrow();
        step.secrets.iter().filter_map(|name| known.get(name).cloned()).collect()
    }

    /// Those with these names, which are all that there may be and must be: an error names the first that is missing or too many.
    pub fn exactly<'a>(self, names: impl Iterator<Item = &'a str> + Clone) -> Result<Vec<Secret>, Inexact> {
        let known = self.known.send_replace(BTreeMap::new());
        if let Some(name) = names.clone().find(|name| !known.contains_key(*name)) {
            return Err(Inexact::Missing(name.to_owned()));
        }
        match known.keys().find(|known| !names.clone().any(|name| name == *known)) {
            Some(name) => Err(Inexact::Unknown(name.clone())),
            None => Ok(known.into_values().collect()),
        }
    }

    /// The first missing secret of a step.
    pub fn missing<'a>(&self, step: &'a Step) -> Option<&'a str> {
        let known = self.known.borrow();
        step.secrets.iter().find(|name| !known.contains_key(*name)).map(String::as_str)
    }

    /// What stands for the values of these secrets of a step in its key. After a restart, waits until the client has sent them again; `None` if
    /// it does not.
    pub async fn keys(
        &self,
        step: &Step,
        keyed: &[String],
        key: impl Fn(&Secret) -> String,
    ) -> Option<Vec<(String, String)>> {
        if keyed.is_empty() {
            return Some(Vec::new());
        }
        if self.missing(step).is_some() && !self.given_again(step).await {
            return None;
        }
        let given = self.of(step);
        let keyed = given.iter().filter(|secret| keyed.contains(&secret.name));
        Some(keyed.map(|secret| (secret.name.clone(), key(secret))).collect())
    }

    /// Waits until all secrets of a step are present. Returns whether they are.
    pub async fn given_again(&self, step: &Step) -> bool {
        let mut known = self.known.subscribe();
        let all = known.wait_for(|known| step.secrets.iter().all(|name| known.contains_key(name)));
        tokio::time::timeout(RESUBMIT_WINDOW, all).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, value: &str) -> Secret {
        Secret { name: name.into(), value: value.into() }
    }

    fn step(secrets: &[&str]) -> Step {
        let mut step = Step::new("publish", "true");
        step.secrets = secrets.iter().map(|name| (*name).to_owned()).collect();
        step
    }

    #[test]
    fn a_step_gets_what_it_asks_for_and_nothing_else() {
        let secrets = Secrets::new(vec![secret("A", "value-a"), secret("B", "value-b")]).unwrap();
        assert_eq!(secrets.of(&step(&["B"])), [secret("B", "value-b")]);
        assert_eq!((secrets.missing(&step(&["A", "C"])), secrets.missing(&step(&["A"]))), (Some("C"), None));
        assert!(secrets.of(&step(&[])).is_empty());
        assert!(!format!("{secrets:?}").contains("value-"), "{secrets:?}");
    }

    #[test]
    fn what_a_shell_is_given_is_what_its_step_asks_for() {
        let exactly = |given: &[&str], names: &[&'static str]| {
            let given = given.iter().map(|name| secret(name, "value-x")).collect();
            Secrets::new(given).unwrap().exactly(names.iter().copied()).map(|secrets| secrets.len())
        };
        assert_eq!(exactly(&["A", "B"], &["B", "A"]), Ok(2));
        assert_eq!(exactly(&["A"], &["A", "B"]), Err(Inexact::Missing("B".to_owned())));
        assert_eq!(exactly(&["A", "C"], &["A"]), Err(Inexact::Unknown("C".to_owned())));
        assert_eq!(exactly(&[], &[]), Ok(0));
    }

    #[test]
    fn a_value_that_cannot_be_masked_or_set_is_refused_without_showing_it() {
        let words = Secrets::new(vec![secret("A", "abc")]).unwrap_err();
        assert!(words.contains("`A`") && !words.contains("abc"), "{words}");
    }

    #[tokio::test]
    async fn a_step_that_waits_goes_on_when_its_secrets_are_given_again() {
        let secrets = Secrets::default();
        let step = step(&["A"]);
        let (given, ()) = tokio::join!(secrets.given_again(&step), async {
            secrets.take(Secrets::new(vec![secret("A", "value-a")]).unwrap());
        });
        assert!(given && secrets.missing(&step).is_none());
    }
}
