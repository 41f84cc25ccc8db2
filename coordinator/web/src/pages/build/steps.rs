//! The steps of a build over time, each with its output.

use kiln_proto::v1;
use maud::{Markup, html};

use crate::markup::{encoded, words};
use kiln_web_model::{Outcome, Progress, Step};

/// What the rows of one build have in common.
pub(super) struct Axis<'a> {
    build: &'a v1::Build,
    progress: &'a Progress,
    begin: i64,
    end: i64,
    now: i64,
    /// More than one target or platform.
    has_targets: bool,
}

impl<'a> Axis<'a> {
    pub(super) fn of(build: &'a v1::Build, progress: &'a Progress) -> Self {
        let now = words::now();
        let (begin, end) = progress.span(now);
        let first = progress.steps.first().map(|step| (&step.at.platform, &step.at.target));
        let has_targets = progress.steps.iter().any(|step| Some((&step.at.platform, &step.at.target)) != first);
        Self { build, progress, begin, end, now, has_targets }
    }
}

pub(super) fn section(build: &v1::Build, progress: &Progress) -> Markup {
    let axis = Axis::of(build, progress);
    html! {
        section aria-labelledby="steps-title" {
            div .heading {
                h2 #steps-title { "Steps" }
                ul .legend {
                    li .queue { "queue" }
                    li .inputs { "inputs" }
                    li .run { "run" }
                    li .outputs { "outputs" }
                }
            }
            @if progress.steps.is_empty() { p .dim { "The build has no steps yet." } }
            ol #steps .steps {
                @for (place, step) in progress.steps.iter().enumerate() { (row(&axis, place, step)) }
            }
        }
    }
}

pub(super) fn row(axis: &Axis<'_>, place: usize, step: &Step) -> Markup {
    let number = place + 1;
    let log = format!("/builds/{}/steps/{number}/log", encoded(&axis.build.id));
    html! {
        li id={ "r" (number) } {
            details id={ "d" (number) } data-log=(log) data-step=(number) {
                (summary(axis, place, step))
                div .log { a href=(log) { "Open the log" } }
            }
        }
    }
}

pub(super) fn summary(axis: &Axis<'_>, place: usize, step: &Step) -> Markup {
    let outcome = step.outcome(axis.progress);
    let began = step.queued.filter(|_| step.ended.is_none() && matches!(outcome, Outcome::Queued | Outcome::Running));
    html! {
        summary id={ "s" (place + 1) } class=(outcome.word()) {
            span .name title=(step.why) {
                (step.name())
                @if axis.has_targets { span .dim { " " (target(step)) } }
                @if step.attempts > 1 { span .dim { " attempt " (step.attempts) } }
            }
            span .outcome { (outcome.word().replace('-', " ")) }
            (bar(axis, step))
            span .took data-since=[began] { (step.took().map(words::duration).unwrap_or_default()) }
            span .worker.dim { (step.worker) }
            a .open href={ "/builds/" (encoded(&axis.build.id)) "/steps/" (place + 1) } aria-label={ "Details of " (step.name()) } { "details" }
        }
    }
}

/// The target of a step, with its platform if the target's name does not say it.
pub(in crate::pages) fn target(step: &Step) -> String {
    let (target, platform) = (&step.at.target, &step.at.platform);
    let says_platform = target.is_empty() || *target == platform.replace('/', "-");
    if says_platform { platform.clone() } else { format!("{target} · {platform}") }
}

/// Where the time of a step went, on the time of the build.
fn bar(axis: &Axis<'_>, step: &Step) -> Markup {
    let total = (axis.end - axis.begin).max(1);
    let Some((from, parts)) = step.phases(axis.now) else { return html! { svg .bar aria-hidden="true" {} } };
    let running = step.ended.is_none();
    // Short steps would not be seen.
    let least = (total / 400).max(1) as u64;
    let mut x = from - axis.begin;
    let last = parts.iter().rposition(|part| *part > 0).unwrap_or(0);
    html! {
        svg .bar viewBox={ "0 0 " (total) " 10" } preserveAspectRatio="none" aria-hidden="true" {
            @for (number, (class, part)) in ["queue", "inputs", "run", "outputs"].iter().zip(parts).enumerate() {
                @if part > 0 || (number == last && running) {
                    rect class=(class) x=(x) y="0" height="10" width=(if number == last { part.max(least) } else { part })
                        data-from=[(running && number == last).then_some(x)] {}
                }
                @let () = x += part as i64;
            }
        }
    }
}
