//! Dockerfiles as data: what each builds, or why it is refused. The cases are in `cli/tests/dockerfile`, whose README says how
//! they are written.
//!
//! `KILN_CASES=one,two` runs only these.

#![allow(clippy::unwrap_used)]

mod attacks;
mod case;
mod check;
mod docker;
mod image;
mod kiln;
mod lanes;
mod runs;
mod serve;

use case::Case;

/// Fails with what each case that is not as it says found.
fn report(cases: &[Case], found: Vec<(String, Vec<String>)>) {
    let failed: Vec<String> = found
        .into_iter()
        .filter(|(_, problems)| !problems.is_empty())
        .map(|(name, problems)| format!("{name}: {}", problems.join("\n    ")))
        .collect();
    let (count, all) = (failed.len(), cases.len());
    assert!(failed.is_empty(), "{count} of {all} cases are not as they say:\n{}", failed.join("\n"));
}

#[test]
fn each_case_builds_what_it_says() {
    let cases: Vec<Case> = case::all().into_iter().filter(|case| case.expect.base.is_none()).collect();
    let Some(lane) = kiln::Lane::new(&cases) else { return };
    report(&cases, lanes::run(&cases, |case| lane.problems(case)));
}

/// One case of each kind also on Docker, so that the expectations are not only Kiln's own.
#[test]
fn docker_agrees_about_the_usual() {
    let cases: Vec<Case> = case::all().into_iter().filter(|case| case.expect.usual).collect();
    let Some(docker) = docker::Docker::new() else { return };
    report(&cases, lanes::run(&cases, |case| docker.problems(case)));
}

mod long {
    use super::{case, docker, kiln, lanes, report};

    /// Cases as large as those that people have, on Debian.
    #[test]
    #[ignore = "installs packages"]
    fn each_large_case_builds_what_it_says() {
        let cases: Vec<_> = case::all().into_iter().filter(|case| case.expect.base.is_some()).collect();
        let Some(lane) = kiln::Lane::new(&cases) else { return };
        report(&cases, lanes::run(&cases, |case| lane.problems(case)));
    }

    /// Every case on Docker: it agrees, or the case says why not.
    #[test]
    #[ignore = "takes minutes"]
    fn docker_agrees_or_the_case_says_why_not() {
        let cases: Vec<_> = case::all().into_iter().filter(|case| case.expect.base.is_none()).collect();
        let Some(docker) = docker::Docker::new() else { return };
        report(&cases, lanes::run(&cases, |case| docker.problems(case)));
    }
}
