//! One step: its command, what it saw and what it made, why it ran, and where.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use kiln_proto::reapi::{self, Action, Command, GetActionResultRequest};
use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{self, Difference, ExplainRequest, Explanation, difference::Kind, step_run::Reason};
use maud::{Markup, html};

use super::Guest;
use super::build::{project, show, step as step_of, target};
use super::download::download_blob;
use crate::answer::Failure;
use crate::blobs::{self, Files, Found, Space};
use crate::live::{Patch, Shown, Subject, stream};
use crate::markup::{Section, encoded, tree, usage, words};
use crate::site::Site;
use kiln_web_model::{Outcome, Step};

/// A step with all that a page of it needs.
struct View {
    shown: std::sync::Arc<Shown>,
    step: Step,
    number: usize,
    outcome: Outcome,
}

impl View {
    async fn of(site: &Site, guest: &Guest, id: &str, number: usize) -> Result<Self, Failure> {
        let shown = show(site, guest, id).await?;
        let step = step_of(&shown, number)?;
        let outcome = step.outcome(&shown.progress.lock());
        Ok(Self { shown, step, number, outcome })
    }

    fn build(&self) -> &v1::Build {
        &self.shown.build
    }

    fn address(&self) -> String {
        format!("/builds/{}/steps/{}", encoded(&self.build().id), self.number)
    }

    /// Whether nothing of it will change.
    fn has_ended(&self) -> bool {
        matches!(self.step.phase, Phase::Done | Phase::Failed | Phase::Skipped)
    }

    fn action(&self) -> Option<&reapi::Digest> {
        self.step.finished.as_ref()?.action_digest.as_ref()
    }

    /// Its action and command, if the store still has them.
    async fn command(&self, guest: &Guest) -> Option<(Action, Command)> {
        let space = &Space::of(self.build());
        let action: Action = blobs::message(&guest.client, space, self.action()?).await.ok()?;
        let command = blobs::message(&guest.client, space, action.command_digest.as_ref()?).await.ok()?;
        Some((action, command))
    }

    async fn result(&self, guest: &Guest) -> Option<reapi::ActionResult> {
        let request = GetActionResultRequest {
            instance_name: self.build().instance.clone(),
            action_digest: Some(self.action()?.clone()),
            digest_function: self.build().digest_function,
            ..GetActionResultRequest::default()
        };
        Some(guest.client.results().get_action_result(request).await.ok()?.into_inner())
    }

    /// Why it ran, if that is known.
    async fn explanation(&self, guest: &Guest) -> Option<Explanation> {
        self.action()?;
        let request = ExplainRequest {
            instance: self.build().instance.clone(),
            project: self.build().project.clone(),
            step: self.step.at.step.clone(),
            build: self.build().id.clone(),
        };
        let explained = guest.client.cache().explain(request).await.ok()?.into_inner();
        explained.explanations.into_iter().find(|one| {
            one.step.as_ref() == Some(&self.step.at) && one.run.as_ref().is_some_and(|run| run.build == self.build().id)
        })
    }
}

/// The page.
pub(crate) async fn page(
    State(site): State<Site>,
    guest: Guest,
    Path((id, number)): Path<(String, usize)>,
) -> Result<Markup, Failure> {
    let view = View::of(&site, &guest, &id, number).await?;
    let title = format!("{} · {}", view.step.name(), project(view.build()));
    let live = (!view.has_ended()).then(|| format!("{}/live?", view.address()));
    Ok(guest.page(&title, Section::Builds, live, content(&view, &guest).await))
}

/// What changes in the page, until the step has ended.
pub(crate) async fn follow(
    State(site): State<Site>,
    guest: Guest,
    Path((id, number)): Path<(String, usize)>,
) -> Result<Response, Failure> {
    // Whoever follows may see the build, whether or not somebody else looks already.
    let view = View::of(&site, &guest, &id, number).await?;
    let subject = Subject { tenant: guest.identity.tenant.clone(), what: view.address() };
    let (looking, looker) = (site.clone(), guest.clone());
    let look = move || {
        let (site, guest, id) = (looking.clone(), looker.clone(), id.clone());
        async move {
            let view = View::of(&site, &guest, &id, number).await?;
            let mut drawn = vec![Patch::replace("step", content(&view, &guest).await).into()];
            drawn.extend(view.has_ended().then(|| Patch::End.into()));
            Ok(drawn)
        }
    };
    let shown = site.feeds.follow(subject, look).await?;
    Ok(stream(shown, site.end(&guest.identity)))
}

/// What is between the page's frame.
async fn content(view: &View, guest: &Guest) -> Markup {
    let tests = super::tested::section(guest, view.build(), view.number, &view.step);
    let (command, result, why, tests) =
        tokio::join!(view.command(guest), view.result(guest), view.explanation(guest), tests);
    html! { div #step {
        nav .crumbs aria-label="Where you are" {
            a href={ "/builds/" (encoded(&view.build().id)) } { (project(view.build())) }
            span .dim { "/" }
            h1 { (view.step.name()) }
            span class={ "badge " (view.outcome.word()) } { (view.outcome.word().replace('-', " ")) }
            a .button.quiet href={ (view.address()) "/log" } { "Log" }
        }
        (facts(view))
        (error(&view.step))
        (tests)
        @if let Some(usage) = view.step.usage() { (usage::section(usage)) }
        (key(view, why.as_ref()))
        (calls(&view.step))
        @match &command {
            Some((action, command)) => (self::command(view, action, command)),
            None if view.action().is_some() => section { h2 { "Command" } p .dim { "The store no longer has it." } },
            None => {}
        }
        (outputs(view, result.as_ref()))
    } }
}

fn facts(view: &View) -> Markup {
    let (step, done) = (&view.step, view.step.finished.clone().unwrap_or_default());
    let timing = done.timing;
    let usage = step.usage();
    let runs = step.started.filter(|_| step.phase == Phase::Running);
    html! {
        dl .facts {
            div { dt { "Target" } dd { (target(step)) } }
            @if !step.worker.is_empty() { div { dt { "Worker" } dd { (step.worker) } } }
            @if step.attempts > 1 { div { dt { "Attempts" } dd { (step.attempts) } } }
            @if step.finished.is_some() && !done.no_exit_code { div { dt { "Exit code" } dd { (done.exit_code) } } }
            @if let Some(since) = runs {
                div { dt { "Runs for" } dd { span data-since=(since) { (words::duration((words::now() - since).max(0) as u64)) } } }
            }
            @if let Some(took) = step.took() { div { dt { "Took" } dd { (words::duration(took)) } } }
            @if let Some(timing) = timing {
                @for (name, part) in [("Queue", timing.queued_ms), ("Inputs", timing.inputs_ms), ("Run", timing.run_ms), ("Outputs", timing.outputs_ms)] {
                    div { dt { (name) } dd { (words::duration(part)) } }
                }
            }
            @if let Some(usage) = usage.filter(|usage| usage.cpu_ms > 0) {
                div { dt { "CPU time" } dd { (words::duration(usage.cpu_ms)) } }
            }
            @if let Some(usage) = usage.filter(|usage| usage.peak_memory_bytes > 0) {
                div { dt { "Peak memory" } dd { (words::size(usage.peak_memory_bytes)) } }
            }
            @if step.expected_ms > 0 { div { dt { "Expected" } dd { (words::duration(step.expected_ms)) } } }
            @if done.output_bytes > 0 { div { dt { "Output" } dd { (words::size(done.output_bytes)) } } }
            @if done.emulated { div { dt { "Machine" } dd { "emulated" } } }
            @if step.is_layer { div { dt { "Kind" } dd { "dependency layer" } } }
        }
        @if !step.why.is_empty() { p .dim { (step.why) } }
        @if !step.needs.is_empty() { p .dim { "Needs " (step.needs.join(", ")) "." } }
    }
}

fn error(step: &Step) -> Markup {
    let done = step.finished.clone().unwrap_or_default();
    html! {
        @if !done.ok && !done.message.is_empty() {
            section #error .error aria-label="Why it failed" {
                p .words { (words::quoted(&done.message)) }
                @if !done.first_error.is_empty() { pre { (done.first_error.join("\n")) } }
            }
        }
    }
}

/// Its key, and what is different from the last time that it hit or succeeded.
fn key(view: &View, why: Option<&Explanation>) -> Markup {
    let Some(action) = view.action() else { return html! {} };
    html! {
        section aria-labelledby="key-title" {
            h2 #key-title { "Key" }
            p { code { (action.hash) "/" (action.size_bytes) } }
            @match why {
                None => p .dim {
                    @if matches!(view.outcome, Outcome::Hit | Outcome::CutOff) { "Its result was known." }
                    @else { "Many builds have run this step since; why this one did is no longer known." }
                },
                Some(why) => {
                    p { (reason(why.run.as_ref().map(|run| run.reason()).unwrap_or_default())) }
                    @if why.forgotten { p .dim { "What one of the two runs was made of is no longer known." } }
                    @if !why.differences.is_empty() { (differences(&why.differences)) }
                    @if why.more { p .dim { "There are more differences: " code { "kiln cache explain " (view.step.at.step) } } }
                }
            }
        }
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Unspecified => "Its result was known.",
        Reason::First => "Nothing earlier of it is known.",
        Reason::Changed => "It is not what it was when it last hit or succeeded:",
        Reason::Evicted => "Its result was known, but was evicted or has expired.",
        Reason::Pruned => "Its result was pruned.",
        Reason::NotCached => "It has `cache = false`.",
        Reason::NoCache => "The build ran every step again.",
        Reason::FailedBefore => "The same ran before and failed; failures are not cached.",
        Reason::RunAgain => "Its outputs were evicted while the build needed them.",
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "other",
        Kind::Input => "file",
        Kind::Variable => "variable",
        Kind::Command => "command",
        Kind::Tool => "tool",
        Kind::System => "system",
        Kind::Platform => "property",
        Kind::Image => "image",
        Kind::Need => "needed step",
        Kind::Setting => "setting",
    }
}

fn differences(differences: &[Difference]) -> Markup {
    html! {
        div .scroll {
            table .differences {
                thead { tr { th { "What" } th { "Name" } th { "Before" } th { "Now" } } }
                tbody {
                    @for one in differences {
                        tr {
                            td .dim { (kind(one.kind())) }
                            td { (one.name) }
                            td { @if let Some(before) = &one.before { (value(before)) } @else { span .dim { "none" } } }
                            td { @if let Some(after) = &one.after { (value(after)) } @else { span .dim { "none" } } }
                        }
                    }
                }
            }
        }
    }
}

/// A value that was compared; of a digest, its beginning says enough.
fn value(text: &str) -> Markup {
    let hash = text.split_once('/').filter(|(hash, _)| hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit()));
    html! {
        @match hash {
            Some((hash, rest)) => code title=(text) { (words::short(hash, 12)) "…/" (rest) },
            None => code { (text) },
        }
    }
}

fn calls(step: &Step) -> Markup {
    let Some(calls) = &step.calls else { return html! {} };
    if calls.hits + calls.compiled + calls.elsewhere == 0 && calls.refused.is_empty() {
        return html! {};
    }
    let mut refused: Vec<_> = calls.refused.iter().collect();
    refused.sort_by(|one, other| other.1.cmp(one.1));
    html! {
        section aria-labelledby="calls-title" {
            h2 #calls-title { "Compiler calls" }
            p {
                (words::grouped(calls.hits)) " known, " (words::grouped(calls.compiled)) " compiled here, " (words::grouped(calls.elsewhere))
                " on other workers, " (words::grouped(calls.refused.values().sum())) " not split."
            }
            @if !refused.is_empty() {
                ul {
                    @for (reason, number) in refused {
                        li {
                            (words::grouped(*number)) " × " (reason)
                            @if let Some(example) = calls.examples.get(reason) { span .dim { " such as " code { (example) } } }
                        }
                    }
                }
            }
            @if !calls.missed.is_empty() {
                details {
                    summary { "Why nothing was known of those that ran" }
                    ul { @for missed in &calls.missed { li { code { (missed.source) } " " (why_missed(missed)) } } }
                }
            }
        }
    }
}

fn why_missed(missed: &v1::CallMiss) -> String {
    use v1::call_miss::Why;
    match missed.why() {
        Why::Unspecified => String::new(),
        Why::First => "was not compiled before".to_owned(),
        Why::Changed => format!("because `{}` has changed", missed.path),
        Why::Missing => format!("because `{}` is gone", missed.path),
        Why::Appeared => format!("because `{}` is there now", missed.path),
        Why::Listing => format!("because the names in `{}` are others", missed.path),
        Why::Gone => "was known, and its result was evicted".to_owned(),
    }
}

fn command(view: &View, action: &Action, command: &Command) -> Markup {
    let platform: Vec<_> = action.platform.iter().flat_map(|platform| &platform.properties).collect();
    html! {
        section aria-labelledby="command-title" {
            h2 #command-title { "Command" }
            pre .code { @for argument in &command.arguments { (argument) "\n" } }
            @if !command.working_directory.is_empty() { p .dim { "In " code { (command.working_directory) } } }
            @if !command.environment_variables.is_empty() {
                details #environment {
                    summary { (words::count(command.environment_variables.len() as u64, "variable", "variables")) }
                    div .scroll { table { tbody {
                        @for one in &command.environment_variables { tr { td { code { (one.name) } } td { code { (one.value) } } } }
                    } } }
                }
            }
            @if !platform.is_empty() {
                details #platform {
                    summary { (words::count(platform.len() as u64, "property", "properties")) " of the worker" }
                    div .scroll { table { tbody {
                        @for one in platform { tr { td { code { (one.name) } } td { code { (one.value) } } } }
                    } } }
                }
            }
            p { a href={ (view.address()) "/inputs" } { "Browse its inputs" } }
        }
    }
}

fn outputs(view: &View, result: Option<&reapi::ActionResult>) -> Markup {
    let Some(result) = result else { return html! {} };
    html! {
        section aria-labelledby="outputs-title" {
            h2 #outputs-title { "Outputs" }
            @if result.output_files.is_empty() && result.output_directories.is_empty() { p .dim { "None." } }
            @else { p { a href={ (view.address()) "/outputs" } {
                "Browse "
                @if !result.output_files.is_empty() { (words::count(result.output_files.len() as u64, "file", "files")) }
                @if !result.output_files.is_empty() && !result.output_directories.is_empty() { " and " }
                @if !result.output_directories.is_empty() { (words::count(result.output_directories.len() as u64, "directory", "directories")) }
            } } }
        }
    }
}

/// The inputs or outputs of a step, at a path.
pub(crate) async fn browse(
    State(site): State<Site>,
    guest: Guest,
    Path(path): Path<Vec<String>>,
    uri: axum::http::Uri,
) -> Result<Response, Failure> {
    let [id, number, rest @ ..] = path.as_slice() else { return Err(Failure::not_found("There is no such page.")) };
    let number = number.parse().map_err(|_| Failure::not_found("The build has no such step."))?;
    let path = rest.first().cloned().unwrap_or_default();
    let is_input = uri.path().split('/').nth(5) == Some("inputs");
    let view = View::of(&site, &guest, id, number).await?;
    let space = Space::of(view.build());
    let gone = || Failure::not_found("The store no longer has it.");
    let files = if is_input {
        let (action, _) = view.command(&guest).await.ok_or_else(gone)?;
        Files::of(&guest.client, space.clone(), action.input_root_digest.as_ref().ok_or_else(gone)?).await?
    } else {
        Files::of_result(&guest.client, space.clone(), &view.result(&guest).await.ok_or_else(gone)?).await?
    };
    match files.find(&path).await? {
        Found::File(file) => {
            let digest = file.digest.unwrap_or_default();
            download_blob(&guest.client, &space, &digest, &file.name, "application/octet-stream").await
        }
        Found::Directory(directory) => {
            let what = if is_input { "inputs" } else { "outputs" };
            let base = format!("{}/{what}", view.address());
            let content = html! {
                nav .crumbs aria-label="Where you are" {
                    a href={ "/builds/" (encoded(&view.build().id)) } { (project(view.build())) }
                    span .dim { "/" }
                    a href=(view.address()) { (view.step.name()) }
                    span .dim { "/" }
                    h1 { (what) }
                }
                (tree::directory(&base, &path, &directory))
            };
            Ok(guest.page(&format!("{what} of {}", view.step.name()), Section::Builds, None, content).into_response())
        }
    }
}
