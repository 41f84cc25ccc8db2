//! `kiln test-report`: what became of a build's tests, by the reports of its steps.

use kiln_proto::v1;
use kiln_proto::v1::test_case::Outcome;
use kiln_proto::v1::{StepState, TestCase};
use serde_json::{Value, json};

use crate::farm::Farm;
use crate::{Code, Error, args, local};
use kiln_progress::{failures, is_called, name_of_test};
use kiln_terminal::{Table, fixed, flexible, harmless};

pub(super) async fn run(farm: &Farm, args: args::TestReport) -> Result<Code, Error> {
    let build = farm.build(&args.build).await?;
    let blobs = farm.blobs_of(&build)?;
    let is_wanted = |state: &&StepState| {
        let step = state.step.clone().unwrap_or_default();
        args.step.as_deref().is_none_or(|wanted| is_called(&step.step, wanted))
    };
    let mut all: Vec<(v1::StepRef, TestCase)> = Vec::new();
    for state in build.steps.iter().filter(is_wanted) {
        let (step, finished) = (state.step.clone().unwrap_or_default(), state.finished.clone().unwrap_or_default());
        let tests = farm.tests(&blobs, &finished).await?;
        all.extend(tests.into_iter().map(|test| (step.clone(), test)));
    }
    if all.is_empty() && !args.json {
        let words = format!(
            "no step of build `{}` has reports of tests; name them in a step's `reports` in `kiln.toml`",
            build.id
        );
        return Err(Error::Usage(words));
    }
    // Of several steps, too, those that failed come first.
    all.sort_by_key(|(_, test)| (test.outcome() != Outcome::Failed, !test.flaky));
    if args.json {
        return local::print_json(&Value::from(all.iter().map(object).collect::<Vec<_>>()));
    }
    let tests: Vec<TestCase> = all.iter().map(|(_, test)| test.clone()).collect();
    let mut out = String::new();
    failures(&tests, (usize::MAX, usize::MAX)).iter().for_each(|line| out.push_str(&format!("{line}\n")));
    let columns = [flexible("test"), flexible("step"), fixed("result"), fixed("ms")];
    let row = |(step, test): &(v1::StepRef, TestCase)| {
        vec![name_of_test(test), harmless(&step.step), word(test).to_owned(), test.duration_ms.to_string()]
    };
    out.push_str(&Table::new(&columns).with(all.iter().map(row)).for_stdout());
    local::print(out.as_bytes())
}

fn word(test: &TestCase) -> &'static str {
    match test.outcome() {
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        _ => "passed",
    }
}

fn object((step, test): &(v1::StepRef, TestCase)) -> Value {
    json!({
        "step": step.step,
        "platform": step.platform,
        "target": step.target,
        "shard": step.shard + 1,
        "suite": test.suite,
        "name": test.name,
        "outcome": word(test),
        "flaky": test.flaky,
        "duration_ms": test.duration_ms,
        "message": test.message,
        "output": test.output,
        "file": test.file,
    })
}
