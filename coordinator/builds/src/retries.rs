//! Runs the tests of a step again that failed, and makes one result of all runs.
//!
//! Invariant: a step passes if each of its tests has passed and its command has ended well with them; whatever was run again is an action of its own,
//! so the step's own action never has a result that it did not produce.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kiln_planner::plan::Step;
use kiln_proto::v1::{self, TestCase, event, test_case::Outcome};
use kiln_proto::{digest::Digest, reapi};
use kiln_runners::Chosen;

use super::Work;
use super::lower::{self, Lowered, Lowering, Outputs};
use super::reports::{self, Told};
use super::shards::Shares;
use super::steps::{self, Ended, Job, Ran};
use kiln_execution::Known;

/// What tells the result of several runs from that of the action: both are the step's.
const SALT: &[u8] = b"kiln.retried";

/// The action itself, or the one that stands for several runs of it if those have passed.
pub(super) async fn or_merged(
    work: &Work,
    job: &Job,
    lowering: &Lowering<'_>,
    lowered: Lowered,
    known: Arc<Known>,
) -> Result<(Lowered, Arc<Known>), lower::Error> {
    if job.step.retries == 0 || work.request.no_cache || job.again || !job.step.cache {
        return Ok((lowered, known));
    }
    let instance = work.request.instance.trim_matches('/');
    let merged = merged(lowering, &lowered, &known).await?;
    Ok(match work.stores.actions.get(instance, &merged.0.digest).await? {
        Some(_) => merged,
        None => (lowered, known),
    })
}

async fn merged(
    lowering: &Lowering<'_>,
    lowered: &Lowered,
    known: &Known,
) -> Result<(Lowered, Arc<Known>), lower::Error> {
    let salt = [lowered.action.salt.as_slice(), SALT].concat();
    lowering.salted(lowered.clone(), known, &salt).await
}

/// The job, with what tells a runner to try failed tests again itself.
pub(super) fn by_runner(mut job: Job) -> Job {
    if job.step.retries > 0 && kiln_runners::Tool::of(&job.step.run) == Some(kiln_runners::Tool::Nextest) {
        let retries = job.step.retries.to_string();
        job.step.env.entry("NEXTEST_RETRIES".into()).or_insert(retries);
    }
    job
}

/// Runs the failed tests of a step again as often as it says, until all have passed. `ran` is then the result of all runs, and `tests` have what came of
/// each in the end.
///
/// # Errors
/// If the farm could not run them, or lost what they are made of: that is not the tests' fault.
pub(super) async fn run(work: &Work, job: &Job, ran: &mut Ran, told: &mut Told) -> Result<(), Ended> {
    let Told { tests, retries, .. } = told;
    let exited = ran.done.response.result.as_ref().filter(|result| result.exit_code != 0);
    let is_whole = ran.done.response.status.as_ref().is_none_or(|status| status.code == 0);
    // nextest has run them again itself.
    let by_runner = kiln_runners::Tool::of(&job.step.run) == Some(kiln_runners::Tool::Nextest);
    let Some(first) = exited.cloned().filter(|_| is_whole && !by_runner) else { return Ok(()) };
    let mut runs = vec![first.clone()];
    let mut all = false;
    for retry in 1..=job.step.retries {
        let failed = failed(tests);
        if failed.is_empty() {
            break;
        }
        let chosen = if all { None } else { chosen(&job.step, job.shares.as_deref(), tests) };
        all = chosen.is_none();
        tell(work, job, retry, failed.len(), all);
        *retries = retry;
        let step = again(&job.step, retry, chosen);
        let shares = job.shares.clone().filter(|_| all);
        let again = Job { step, shares, again: true, ..job.clone() };
        let next = Box::pin(steps::ran(work, &again)).await?;
        if let Some(ended) = steps::not_its_fault(job, &next.done) {
            return Err(ended);
        }
        let Some(result) = next.done.response.result.clone() else { break };
        let heard = reports::of(work, &again, Some(&result)).await.unwrap_or_default();
        let unheard = count(tests, heard, (all, result.exit_code == 0));
        let mut outcomes = tests.iter().filter(|test| test.flaky).cloned().collect::<Vec<_>>();
        reports::flaky(work, &ran.lowered.digest, &mut outcomes, false).await;
        runs.push(result.clone());
        if result.exit_code == 0 && !unheard && self::failed(tests).is_empty() {
            succeed(work, job, ran, (&runs, all), tests).await;
            return Ok(());
        }
        // Its runner did not run what it was told to: the whole command is certain to.
        all |= unheard;
    }
    // What failed last says why; all that was printed is kept.
    if let Some(result) = &mut ran.done.response.result {
        printed(work, result, &runs).await;
    }
    Ok(())
}

fn failed(tests: &[TestCase]) -> Vec<&TestCase> {
    tests.iter().filter(|test| test.outcome() == Outcome::Failed).collect()
}

/// The command that runs the failed tests only.
fn chosen(step: &Step, shares: Option<&Shares>, tests: &[TestCase]) -> Option<Chosen> {
    let names = |is_failed: bool| {
        let some = tests.iter().filter(|test| (test.outcome() == Outcome::Failed) == is_failed);
        some.map(|test| (test.suite.as_str(), test.name.as_str())).collect()
    };
    let shares = shares.map(Vec::as_slice);
    let ran = kiln_runners::Ran { failed: names(true), others: names(false), shares };
    kiln_runners::only(&step.run, step.working_directory.as_deref(), &ran)
}

fn again(step: &Step, retry: u32, chosen: Option<Chosen>) -> Step {
    let mut step = step.clone();
    step.env.insert("KILN_RETRY".into(), retry.to_string());
    if let Some(chosen) = chosen {
        step.run = chosen.run;
        step.files.extend(chosen.files);
    }
    step
}

fn tell(work: &Work, job: &Job, retry: u32, failed: usize, all: bool) {
    let tests = if failed == 1 { "1 test".to_owned() } else { format!("{failed} tests") };
    let what = if all { "all tests run" } else { "running what failed" };
    let text = format!("kiln: {tests} failed: {what} again (retry {retry} of {})\n", job.step.retries);
    let log =
        v1::Log { step: Some(job.reference()), stream: "stderr".into(), data: Bytes::from(text), skipped_bytes: 0 };
    work.tell(event::Event::Log(log));
}

/// Adds what came of tests in another run, of all of them or some. Returns whether that run was not what it was meant to be: nothing was heard of a test
/// that had failed, or some were left out that had not run before.
fn count(tests: &mut Vec<TestCase>, heard: Told, (all, ended_well): (bool, bool)) -> bool {
    let again: BTreeMap<(String, String), TestCase> =
        heard.tests.into_iter().map(|test| ((test.suite.clone(), test.name.clone()), test)).collect();
    let known: HashSet<(&str, &str)> = tests.iter().map(|test| (test.suite.as_str(), test.name.as_str())).collect();
    let new: Vec<TestCase> =
        again.values().filter(|test| !known.contains(&(test.suite.as_str(), test.name.as_str()))).cloned().collect();
    let mut unheard = !all && new.iter().any(|test| test.outcome() == Outcome::Skipped);
    tests.extend(new);
    for test in tests.iter_mut() {
        let found = again.get(&(test.suite.clone(), test.name.clone()));
        // What stands for a whole program is told of only when that fails.
        let stands_for_all = test.name.starts_with("(the ") && ended_well;
        match found.map(TestCase::outcome) {
            heard if test.outcome() != Outcome::Failed => test.flaky |= heard == Some(Outcome::Failed),
            Some(Outcome::Failed) => {
                let found = found.cloned().unwrap_or_default();
                (test.message, test.output) = (found.message, found.output);
            }
            Some(Outcome::Passed) => passed(test),
            None if stands_for_all => passed(test),
            _ => unheard = true,
        }
    }
    unheard
}

fn passed(test: &mut TestCase) {
    test.set_outcome(Outcome::Passed);
    test.flaky = true;
}

/// Makes one result of several runs, and keeps it for whoever asks for the step with retries.
async fn succeed(
    work: &Work,
    job: &Job,
    ran: &mut Ran,
    (runs, all): (&[reapi::ActionResult], bool),
    tests: &[TestCase],
) {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return };
    let is_complete = |result: &reapi::ActionResult| {
        Outputs::of(work.function, result).is_ok_and(|outputs| outputs.absent(&job.step.outputs).is_empty())
    };
    // A run of some tests leaves what some tests leave.
    let mut result = if all || !is_complete(first) { last.clone() } else { first.clone() };
    result.exit_code = 0;
    printed(work, &mut result, runs).await;
    let keeps = reports::add_to(work, &mut result, tests).await && is_complete(&result);
    ran.done.response.result = Some(result.clone());
    ran.done.response.message.clear();
    if !keeps || ran.known.action.do_not_cache {
        return;
    }
    let lowering = Lowering { source: &work.source, store: &*work.stores.blobs, function: work.function };
    let instance = work.request.instance.trim_matches('/');
    let kept = match merged(&lowering, &ran.lowered, &ran.known).await {
        Ok((merged, _)) => work.stores.actions.put(instance, &merged.digest, result).await.map_err(lower::Error::from),
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        tracing::warn!(%error, step = job.step.name, "cannot keep the result of a step whose tests ran again");
    }
}

/// Gives a result what all runs printed.
async fn printed(work: &Work, result: &mut reapi::ActionResult, runs: &[reapi::ActionResult]) {
    let out = runs.iter().map(|run| (run.stdout_digest.as_ref(), &run.stdout_raw[..])).collect();
    let err = runs.iter().map(|run| (run.stderr_digest.as_ref(), &run.stderr_raw[..])).collect();
    if let Some(digest) = joined(work, out).await {
        (result.stdout_digest, result.stdout_raw) = (Some(digest.to_wire()), Vec::new());
    }
    if let Some(digest) = joined(work, err).await {
        (result.stderr_digest, result.stderr_raw) = (Some(digest.to_wire()), Vec::new());
    }
}

/// Several outputs as one; `None` if they are too large, or lost.
async fn joined(work: &Work, parts: Vec<(Option<&reapi::Digest>, &[u8])>) -> Option<Digest> {
    let mut all = BytesMut::new();
    for (digest, raw) in parts {
        all.extend_from_slice(&reports::stream(work, digest, raw).await.ok()?);
    }
    let digest = work.function.digest(&all);
    work.stores.blobs.put(&digest, all.freeze()).await.ok()?;
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, outcome: Outcome) -> TestCase {
        TestCase { name: name.into(), outcome: outcome as i32, message: "first".into(), ..TestCase::default() }
    }

    #[test]
    fn a_test_that_passes_later_is_flaky_and_one_that_nothing_is_heard_of_has_failed() {
        let failed = |name: &str| test(name, Outcome::Failed);
        let mut tests = vec![failed("a"), failed("b"), failed("(the program)"), test("c", Outcome::Passed)];
        let second = Told { tests: vec![test("a", Outcome::Passed), test("c", Outcome::Failed)], ..Told::default() };
        assert!(count(&mut tests, second, (false, false)), "nothing is heard of `b`");
        let outcomes = |tests: &[TestCase]| tests.iter().map(|test| (test.outcome(), test.flaky)).collect::<Vec<_>>();
        let (passed, failed) = ((Outcome::Passed, true), (Outcome::Failed, false));
        assert_eq!(outcomes(&tests), [passed, failed, failed, passed], "`c` failed when all ran again");
        let mut again = test("b", Outcome::Failed);
        again.message = "second".into();
        assert!(!count(&mut tests, Told { tests: vec![again], ..Told::default() }, (false, true)));
        assert_eq!(tests[1].message, "second");
        assert_eq!(outcomes(&tests)[2], passed, "it is told of only when it fails");
        // A skipped test has not passed.
        let skipped = |name: &str| Told { tests: vec![test(name, Outcome::Skipped)], ..Told::default() };
        assert!(count(&mut tests, skipped("b"), (false, true)));
        // Nor has one that is first heard of when it is left out.
        let mut tests = vec![test("c", Outcome::Passed)];
        assert!(count(&mut tests, skipped("new"), (false, true)) && !count(&mut tests, skipped("newer"), (true, true)));
        assert_eq!(tests.len(), 3);
    }
}
