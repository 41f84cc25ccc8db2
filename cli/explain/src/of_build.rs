//! What is said of a build's run of a step if the farm explains nothing.

use kiln_progress::is_called;
use kiln_proto::v1::{self, step_finished::Cache};
use kiln_terminal as terminal;

/// Why there is no explanation of a build's run of this step, for a terminal: it has not run, it was a hit, or the farm no longer knows.
pub fn unknown(build: &v1::Build, step: &str) -> String {
    let id = &build.id;
    let ended = build.steps.iter().filter_map(|state| Some((&state.step.as_ref()?.step, state.finished.as_ref()?)));
    let of_step: Vec<Cache> =
        ended.clone().filter(|(name, _)| is_called(name, step)).map(|(_, finished)| finished.cache()).collect();
    let mut names: Vec<&str> = ended.map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let words = match (&of_step[..], &names[..]) {
        ([], []) => format!("no step of build {id} has run\n"),
        ([], names) => {
            format!("step `{step}` has not run in build {id}; those that have: {}\n", names.join(", "))
        }
        (caches, _) if caches.iter().all(|cache| *cache == Cache::Hit) => {
            format!("{step} was a hit in build {id}: there is nothing to explain\n")
        }
        _ => format!(
            "why {step} missed in build {id} is no longer known: the farm keeps the last 12 misses of each target and shard\n"
        ),
    };
    terminal::harmless(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(steps: &[(&str, Option<Cache>)]) -> v1::Build {
        let state = |(step, cache): &(&str, Option<Cache>)| v1::StepState {
            step: Some(v1::StepRef { step: (*step).to_owned(), ..v1::StepRef::default() }),
            finished: cache.map(|cache| v1::StepFinished { cache: cache.into(), ..v1::StepFinished::default() }),
            ..v1::StepState::default()
        };
        v1::Build { id: "01b".to_owned(), steps: steps.iter().map(state).collect(), ..v1::Build::default() }
    }

    #[test]
    fn what_is_said_depends_on_what_the_step_did() {
        let some = build(&[("deps", Some(Cache::Hit)), ("compile", Some(Cache::Miss)), ("test\u{1b}[2J", None)]);
        assert!(unknown(&some, "deps").contains("was a hit in build 01b"));
        assert!(unknown(&some, "compile").contains("no longer known"));
        assert!(unknown(&some, "lint").ends_with("those that have: deps, compile\n"), "{}", unknown(&some, "lint"));
        assert!(unknown(&build(&[("deps", None)]), "deps").contains("no step of build 01b has run"));
        assert!(!unknown(&some, "test\u{1b}[2J").contains('\u{1b}'), "expected no control characters");
    }
}
