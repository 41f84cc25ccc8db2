//! What is at the top of a build's page: what it is, and, first of all, why it failed.

use kiln_proto::v1::{self, Artifact, Status};
use maud::{Markup, html};

use super::{project, status};
use crate::markup::{badge, encoded, reproduced, words};
use crate::pages::tested;
use kiln_web_model::{Outcome, Progress, Step};

/// Steps whose errors are shown.
const ERRORS: usize = 5;

pub(super) fn top(build: &v1::Build, progress: &Progress) -> Markup {
    let status = status(build, progress);
    html! {
        div #top {
            div .title {
                h1 { (project(build)) }
                (badge(status))
                @if !build.version.is_empty() { span .dim { (build.version) } }
                @if status == Status::Running { (cancel(build)) }
                @else { a .button.quiet href={ "/compare?b=" (encoded(&build.id)) } { "Compare with the one before" } }
            }
            (facts(build, progress))
            (errors(build, progress, status))
            @for ((target, platform), waiting) in &progress.waiting {
                p .notice.odd {
                    @if waiting.step.is_empty() { (target) " on " (platform) } @else { strong { (waiting.step) } }
                    " waits: " (words::quoted(&waiting.what))
                    @if waiting.ahead > 0 { " (" (words::count(waiting.ahead.into(), "action", "actions")) " ahead)" }
                }
            }
            (tiles(build, progress))
            (artifacts(if progress.artifacts.is_empty() { &build.artifacts } else { &progress.artifacts }))
            @if !progress.warnings.is_empty() {
                details #warnings .warnings {
                    summary { (words::count(progress.warnings.len() as u64, "note", "notes")) }
                    ul { @for warning in &progress.warnings { li .words { (warning) } } }
                }
            }
        }
    }
}

fn cancel(build: &v1::Build) -> Markup {
    html! {
        form .inline method="post" action={ "/builds/" (encoded(&build.id)) "/cancel" } {
            button .quiet type="submit" { "Cancel" }
        }
    }
}

fn facts(build: &v1::Build, progress: &Progress) -> Markup {
    let source = build.source.clone().unwrap_or_default();
    let (begin, end) = progress.span(words::now());
    let is_running = progress.ended.is_none();
    let user = if build.identity.is_empty() { &build.user } else { &build.identity };
    html! {
        dl .facts {
            @if !source.branch.is_empty() {
                div { dt { "Branch" } dd { a .plain href={ "/builds?branch=" (encoded(&source.branch)) } { (source.branch) } } }
            }
            @if !source.commit.is_empty() {
                div {
                    dt { "Commit" }
                    dd title=(source.commit) {
                        code { (words::short(&source.commit, 12)) }
                        @if source.dirty { " + changes" }
                    }
                }
            }
            @if !source.repository.is_empty() { div { dt { "Repository" } dd { (source.repository) } } }
            @if !user.is_empty() {
                div { dt { "By" } dd { a .plain href={ "/builds?user=" (encoded(&build.user)) } { (user) } } }
            }
            @if !build.platforms.is_empty() { div { dt { "Platform" } dd { (build.platforms.join(", ")) } } }
            @if let Some(started) = &build.started { div { dt { "Started" } dd { (words::ago(started)) } } }
            div {
                dt { "Took" }
                dd #clock data-begin=(begin) data-end=[(!is_running).then_some(end)] {
                    span data-since=[is_running.then_some(begin)] { (words::duration((end - begin) as u64)) }
                }
            }
            div { dt { "Build" } dd { code { (build.id) } } }
        }
    }
}

/// Why it did not succeed: the message, and of each failed step the first error that it printed.
fn errors(build: &v1::Build, progress: &Progress, status: Status) -> Markup {
    let message = if progress.message.is_empty() { &build.message } else { &progress.message };
    let failed: Vec<(usize, &Step)> =
        progress.steps.iter().enumerate().filter(|(_, step)| step.outcome(progress) == Outcome::Failed).collect();
    let is_bad = matches!(status, Status::Failed | Status::FarmFailed | Status::Cancelled);
    html! {
        @if (is_bad && !message.is_empty()) || !failed.is_empty() {
            section #error .error aria-label="Why it failed" {
                @if is_bad && !message.is_empty() { p .words { (words::quoted(message)) } }
                @for (place, step) in failed.iter().take(ERRORS) {
                    (error(build, *place, step, message))
                }
                @if failed.len() > ERRORS { p .dim { "and " (failed.len() - ERRORS) " more failed steps" } }
            }
        }
    }
}

fn error(build: &v1::Build, place: usize, step: &Step, message: &str) -> Markup {
    let done = step.finished.clone().unwrap_or_default();
    let log = format!("/builds/{}/steps/{}/log", encoded(&build.id), place + 1);
    html! {
        div .first {
            h3 {
                a href=(log) { (step.name()) }
                @if !done.no_exit_code && done.exit_code != 0 { span .dim { " exit code " (done.exit_code) } }
            }
            @if done.first_error.is_empty() {
                @if !done.message.is_empty() && !message.contains(&done.message) { p .words { (words::quoted(&done.message)) } }
            } @else {
                pre { (done.first_error.join("\n")) }
            }
        }
    }
}

/// The numbers of a build.
fn tiles(build: &v1::Build, progress: &Progress) -> Markup {
    let count = |outcome| progress.count(outcome);
    let all = progress.steps.len() as u64;
    let (hits, cut) = (count(Outcome::Hit), count(Outcome::CutOff));
    let (ran, failed) = (count(Outcome::Ran) + count(Outcome::Merged), count(Outcome::Failed));
    let ended = hits + cut + ran + failed;
    let calls = progress.calls();
    let compiled = calls.hits + calls.compiled + calls.elsewhere + calls.refused.values().sum::<u64>();
    let go = calls.go_hits + calls.go_misses;
    html! {
        div .tiles {
            (tile("Steps", html! { (words::grouped(ended)) span .dim { "/" (words::grouped(all)) } }, html! {
                (words::grouped(ran)) " ran"
                @if failed > 0 { ", " span .bad { (words::grouped(failed)) " failed" } }
            }))
            @if ended > 0 {
                (tile("Cached", html! { (words::percent(hits + cut, ended)) "%" }, html! {
                    (words::count(hits, "hit", "hits"))
                    @if cut > 0 { ", " (words::count(cut, "early cut-off", "early cut-offs")) }
                }))
            }
            @if let Some(tests) = tested::sum(progress.steps.iter()) {
                (tile("Tests", html! {
                    a href={ "/builds/" (encoded(&build.id)) "/tests" } {
                        (words::grouped(u64::from(tests.passed) + u64::from(tests.failed) + u64::from(tests.skipped)))
                    }
                }, tested::counts(&tests)))
            }
            @if compiled > 0 {
                (tile("Compiler calls", html! { (words::grouped(compiled)) }, html! {
                    (words::grouped(calls.hits)) " known, " (words::grouped(calls.compiled)) " here, "
                    (words::grouped(calls.elsewhere)) " elsewhere, " (words::grouped(calls.refused.values().sum())) " not split"
                }))
            }
            @if go > 0 {
                (tile("Go's cache", html! { (words::percent(calls.go_hits, go)) "%" }, html! {
                    (words::grouped(calls.go_hits)) " of " (words::grouped(go)) " entries"
                }))
            }
        }
        @if !calls.refused.is_empty() {
            details #refused .warnings {
                summary { "Why calls were not split" }
                @let mut reasons: Vec<_> = calls.refused.iter().collect();
                @let () = reasons.sort_by(|one, other| other.1.cmp(one.1));
                ul { @for (reason, number) in reasons { li { (words::grouped(*number)) " × " (reason) } } }
            }
        }
    }
}

fn tile(name: &str, value: Markup, more: Markup) -> Markup {
    html! { div .tile { span .dim { (name) } strong { (value) } span .dim { (more) } } }
}

fn artifacts(artifacts: &[Artifact]) -> Markup {
    html! {
        @if !artifacts.is_empty() {
            ul .artifacts aria-label="Artifacts" {
                @for artifact in artifacts {
                    li {
                        span .kind { (artifact.kind) }
                        a href={ "/artifacts/" (encoded(&artifact.id)) } { (artifact.name) @if !artifact.version.is_empty() { " " (artifact.version) } }
                        span .dim { (artifact.platform) " · " (words::size(artifact.size_bytes)) }
                        (reproduced::badge(&artifact.reproducibility))
                        code .dim { (artifact.id) }
                    }
                }
            }
        }
    }
}
