//! What Bazel and its like have told: the list of invocations, and one of them.

mod actions;
mod details;
mod tail;
mod timing;
mod view;

use std::convert::Infallible;
use std::sync::Arc;

use actions::Known;
pub(crate) use actions::page as action_page;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures::StreamExt;
use kiln_proto::v1::{self, Invocation, InvocationCounts, InvocationFile, InvocationStatus};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_stream::wrappers::WatchStream;

use super::Guest;
use crate::answer::Failure;
use crate::blobs::named;
use crate::live::{Drawn, Patch, Subject, answer, message, stream};
use crate::log::{Line, Splitter};
use crate::markup::{Section, encoded, nothing, words};
use crate::outputs::Ends;
use crate::site::Site;
use tail::{Page, Tail};
use view::View;

/// Invocations on one page.
const SHOWN: u32 = 50;

/// From where on a list is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Place {
    before: String,
}

/// The list.
pub(crate) async fn list(guest: Guest, Query(place): Query<Place>) -> Result<Markup, Failure> {
    let live = place.before.is_empty().then(|| "/live/invocations".to_owned());
    let content = html! {
        h1 .visually-hidden { "Invocations of Bazel" }
        (rows(&found(&guest, &place).await?))
    };
    Ok(guest.page("Invocations", Section::Invocations, live, content))
}

/// What changes in the list.
pub(crate) async fn follow_list(State(site): State<Site>, guest: Guest) -> Result<Response, Failure> {
    let subject = Subject { tenant: guest.identity.tenant.clone(), what: "invocations".to_owned() };
    let looking = guest.clone();
    // Whoever follows may list them, whether or not somebody else looks already.
    found(&guest, &Place::default()).await?;
    let look = move || {
        let guest = looking.clone();
        async move { Ok(vec![Patch::replace("list", rows(&found(&guest, &Place::default()).await?)).into()]) }
    };
    Ok(stream(site.feeds.follow(subject, look).await?, site.end(&guest.identity)))
}

async fn found(guest: &Guest, place: &Place) -> Result<Vec<Invocation>, Failure> {
    let asked = v1::ListInvocationsRequest { limit: SHOWN, before: place.before.clone() };
    Ok(guest.client.invocations().list(asked).await?.into_inner().invocations)
}

fn rows(invocations: &[Invocation]) -> Markup {
    html! {
        div #list {
            @if invocations.is_empty() {
                (nothing(html! {
                    p { "No invocations yet." }
                    p .dim { "Bazel tells of them with " code { "--bes_backend" } " and the address of the farm." }
                }))
            } @else {
                ol .builds { @for invocation in invocations { li { (row(invocation)) } } }
                @if let Some(last) = invocations.last().filter(|_| invocations.len() >= SHOWN as usize) {
                    nav .pages aria-label="Pages" {
                        a href="/invocations" rel="first" { "Newest" }
                        a href={ "/invocations?before=" (encoded(&last.id)) } rel="next" { "Older" }
                    }
                }
            }
        }
    }
}

fn row(invocation: &Invocation) -> Markup {
    let counts = invocation.counts.unwrap_or_default();
    html! {
        div .what {
            (badge(invocation.status()))
            a .name href={ "/invocations/" (encoded(&invocation.id)) } { (title(invocation)) }
        }
        div .from {
            @if let Some(commit) = commit(invocation) { code title=(commit) { (words::short(commit, 8)) } }
            @if !invocation.publisher.is_empty() { span .dim { (invocation.publisher) } }
        }
        div .progress { (tally(counts)) }
        div .when {
            span .took { (took(invocation)) }
            @if let Some(started) = &invocation.started { span .dim { (words::ago(started)) } }
        }
        @if invocation.status() == InvocationStatus::InvocationFailed && !invocation.failure.is_empty() {
            p .message { (gist(&invocation.failure)) }
        }
    }
}

/// `test //...`.
fn title(invocation: &Invocation) -> String {
    let patterns: String = invocation.patterns.join(" ").chars().take(120).collect();
    let title = format!("{} {patterns}", invocation.command);
    if title.trim().is_empty() { words::short(&invocation.id, 8).to_owned() } else { title.trim().to_owned() }
}

/// The line of an error that says most: the last one of a trace.
fn gist(failure: &str) -> String {
    let mut lines = failure.lines().filter(|line| !line.trim().is_empty());
    let line = if failure.starts_with("Traceback") { lines.next_back() } else { lines.next() };
    line.unwrap_or_default().chars().take(240).collect()
}

/// The commit, as tools name it.
fn commit(invocation: &Invocation) -> Option<&str> {
    ["COMMIT_SHA", "STABLE_GIT_COMMIT", "BUILD_SCM_REVISION"]
        .iter()
        .find_map(|key| invocation.metadata.get(*key).map(String::as_str))
        .filter(|commit| !commit.is_empty())
}

fn tally(counts: InvocationCounts) -> Markup {
    let InvocationCounts { targets, failed_targets, passed_tests, failed_tests, flaky_tests } = counts;
    let tests = passed_tests + failed_tests + flaky_tests;
    html! {
        @if tests > 0 {
            span { (words::grouped((passed_tests + flaky_tests).into())) "/" (words::grouped(tests.into())) " tests" }
            @if flaky_tests > 0 { span .dim { (words::grouped(flaky_tests.into())) " flaky" } }
        } @else if targets > 0 {
            span { (words::grouped((targets - failed_targets.min(targets)).into())) "/" (words::grouped(targets.into())) " targets" }
        }
    }
}

fn badge(status: InvocationStatus) -> Markup {
    let (class, text) = match status {
        InvocationStatus::InvocationRunning => ("running", "running"),
        InvocationStatus::InvocationSucceeded => ("succeeded", "succeeded"),
        InvocationStatus::InvocationFailed => ("failed", "failed"),
        InvocationStatus::InvocationDisconnected => ("draining", "broken off"),
        InvocationStatus::Unspecified => ("queued", "unknown"),
    };
    html! { span class={ "badge " (class) } { (text) } }
}

/// How long it took, or has taken so far.
fn took(invocation: &Invocation) -> Markup {
    let Some(started) = &invocation.started else { return html! {} };
    let (began, ended) = (words::milliseconds(started), invocation.finished.as_ref().map(words::milliseconds));
    let is_running = invocation.status() == InvocationStatus::InvocationRunning;
    if ended.is_none() && !is_running {
        return html! {};
    }
    let took = u64::try_from(ended.unwrap_or_else(words::now) - began).unwrap_or(0);
    html! { span data-since=[ended.is_none().then_some(began)] { (words::duration(took)) } }
}

/// One invocation.
pub(crate) async fn page(State(site): State<Site>, guest: Guest, Path(id): Path<String>) -> Result<Markup, Failure> {
    let invocation = filled(&site, &guest, &id).await?;
    let is_running = invocation.status() == InvocationStatus::InvocationRunning;
    let mut tail = Tail::default();
    tail.read(&guest, &id, !is_running).await?;
    let live = is_running.then(|| format!("/invocations/{}/live?", encoded(&id)));
    let timing = timing::section(&site.profiles, &guest, &invocation).await;
    let mut known = Known::default();
    known.read(&guest, &id).await?;
    let actions = actions::section(&site.ends, &guest, &id, &known).await;
    let content = html! { (details::of(&invocation)) (actions) (timing) (details::output(&tail.pieces(), is_running)) };
    Ok(guest.page(&title(&invocation), Section::Invocations, live, content))
}

async fn get(guest: &Guest, id: &str) -> Result<Invocation, Failure> {
    Ok(guest.client.invocations().get(v1::GetInvocationRequest { id: id.to_owned() }).await?.into_inner())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Followed {
    /// The line after the last that the page shows, after a colon.
    logs: String,
}

impl Followed {
    fn next(&self) -> u64 {
        self.logs.split_once(':').and_then(|(_, next)| next.parse().ok()).unwrap_or(1)
    }
}

/// What changes on its page: of what it prints, what the page does not have. However many pages show it, it is read once.
pub(crate) async fn follow(
    State(site): State<Site>,
    guest: Guest,
    Path(id): Path<String>,
    Query(followed): Query<Followed>,
) -> Result<Response, Failure> {
    // Whoever follows may see it, whether or not somebody else looks already.
    get(&guest, &id).await?;
    let subject = Subject { tenant: guest.identity.tenant.clone(), what: format!("invocations/{id}") };
    let (looking, view) = ((guest.clone(), site.clone()), Arc::new(Mutex::new(View::default())));
    let look = move || {
        let ((guest, site), id, view) = (looking.clone(), id.clone(), view.clone());
        async move { view.lock().await.look(&site.ends, &site.profiles, &guest, &id).await }
    };
    let shown = site.feeds.follow(subject, look).await?;
    let mut page = Page::showing(followed.next());
    let events = WatchStream::new(shown).filter_map(move |part| {
        let fresh = page.lacks(&part.drawn);
        let event = (!fresh.is_empty()).then(|| message(fresh.iter().map(Drawn::written)));
        std::future::ready(event.map(Ok::<_, Infallible>))
    });
    Ok(answer(events, site.end(&guest.identity)))
}

/// An invocation, with what its failed actions printed.
async fn filled(site: &Site, guest: &Guest, id: &str) -> Result<Invocation, Failure> {
    let mut invocation = get(guest, id).await?;
    fill(&site.ends, guest, &mut invocation).await;
    Ok(invocation)
}

/// What failed actions printed, and the logs of failed tests: of those that are shown.
fn files(invocation: &mut Invocation) -> Vec<&mut InvocationFile> {
    let actions = invocation.failed_actions.iter_mut().take(details::FAILURES);
    let printed = actions.flat_map(|action| [&mut action.stderr, &mut action.stdout]).flatten();
    invocation.tests.sort_by(details::worst_first);
    let tests = invocation.tests.iter_mut().filter(|test| details::has_failed(test)).take(details::FAILURES);
    printed.chain(tests.filter_map(details::log_mut)).collect()
}

/// Reads what failed actions printed and the logs of failed tests, where the tool only says where they are.
async fn fill(ends: &Ends, guest: &Guest, invocation: &mut Invocation) {
    for file in files(invocation) {
        let Some(name) = named(&file.uri).filter(|_| file.content.is_empty()) else { continue };
        if let Some(end) = ends.of(&guest.client, &guest.identity.tenant, &name).await {
            file.content.clone_from(&end);
        }
    }
}

/// What an action printed, as text.
fn printed(content: &[u8]) -> Markup {
    let mut lines = Vec::new();
    let mut splitter = Splitter::default();
    splitter.push(false, content, 0, &mut lines);
    splitter.end(&mut lines);
    let text: Vec<String> = lines.iter().map(Line::plain).collect();
    html! { @if !text.is_empty() { pre { (text.join("\n")) } } }
}
