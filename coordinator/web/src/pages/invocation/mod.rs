//! What Bazel and its like have told: the list of invocations, and one of them.

mod details;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures::TryStreamExt;
use kiln_proto::v1::{self, Invocation, InvocationCounts, InvocationStatus};
use maud::{Markup, html};
use serde::Deserialize;

use super::Guest;
use crate::answer::Failure;
use crate::live::{Patch, Subject, stream};
use crate::markup::{Section, encoded, nothing, words};
use crate::site::Site;

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
        async move { Ok(vec![Patch::replace("list", rows(&found(&guest, &Place::default()).await?))]) }
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
pub(crate) async fn page(guest: Guest, Path(id): Path<String>) -> Result<Markup, Failure> {
    let (invocation, log) = look(&guest, &id).await?;
    let is_running = invocation.status() == InvocationStatus::InvocationRunning;
    let live = is_running.then(|| format!("/invocations/{}/live", encoded(&id)));
    let content = html! { (details::of(&invocation)) (details::output(&log)) };
    Ok(guest.page(&title(&invocation), Section::Invocations, live, content))
}

/// What changes on its page.
pub(crate) async fn follow(
    State(site): State<Site>,
    guest: Guest,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    look(&guest, &id).await?;
    let subject = Subject { tenant: guest.identity.tenant.clone(), what: format!("invocations/{id}") };
    let looking = guest.clone();
    let look = move || {
        let (guest, id) = (looking.clone(), id.clone());
        async move {
            let (invocation, log) = look(&guest, &id).await?;
            Ok(vec![
                Patch::replace("invocation", details::of(&invocation)),
                Patch::replace("output", details::output(&log)),
            ])
        }
    };
    Ok(stream(site.feeds.follow(subject, look).await?, site.end(&guest.identity)))
}

/// An invocation and what it printed.
async fn look(guest: &Guest, id: &str) -> Result<(Invocation, Vec<u8>), Failure> {
    let mut client = guest.client.invocations();
    let invocation = client.get(v1::GetInvocationRequest { id: id.to_owned() }).await?.into_inner();
    let parts = client.log(v1::InvocationLogRequest { id: id.to_owned(), from: 0 }).await?.into_inner();
    let log = parts.try_fold(Vec::new(), |mut all, part| async move {
        all.extend(part.data);
        Ok(all)
    });
    Ok((invocation, log.await?))
}
