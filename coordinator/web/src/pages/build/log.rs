//! The output of a step: a page of its own, the part of it that a build's page shows, and what is added to both.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use kiln_proto::v1;
use maud::{Markup, html};
use serde::Deserialize;
use tokio::sync::broadcast;

use super::{Guest, patches, project, show};
use crate::answer::Failure;
use crate::blobs::Space;
use crate::live::{Changes, Patch, Shown, Written, answer, event, message};
use crate::log::{Line, Log, Which};
use crate::markup::{Section, encoded, words};
use crate::pages::download::download_blob;
use crate::site::Site;
use kiln_web_model::Step;

/// Lines that are sent at once.
const LINES: u64 = 1_000;
/// Logs that one page follows.
const FOLLOWED: usize = 32;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    from: u64,
    /// The line that is meant: it is shown with what is around it.
    line: u64,
    q: String,
    stream: String,
    /// Only the lines, for a page that shows them.
    part: bool,
}

/// A step of a build, by its number.
pub(crate) fn step(shown: &Shown, number: usize) -> Result<Step, Failure> {
    let progress = shown.progress.lock();
    let found = number.checked_sub(1).and_then(|place| progress.steps.get(place));
    found.cloned().ok_or_else(|| Failure::not_found("The build has no such step."))
}

/// The page, or a part of it.
pub(crate) async fn page(
    State(site): State<Site>,
    guest: Guest,
    Path((id, number)): Path<(String, usize)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let shown = show(&site, &guest, &id).await?;
    let step = step(&shown, number)?;
    let which = Which::parse(&asked.stream);
    let log = Log::of(&guest.client, &shown.build, &step, which, &site.indexes).await?;
    let from = match (asked.line, asked.from) {
        (0, 0) => 1,
        (0, from) => from,
        (line, _) => line.saturating_sub(LINES / 4).max(1),
    };
    let lines = log.lines(from, LINES as usize).await?;
    let view = View { build: &shown.build, step: &step, number, asked: &asked, from, total: log.len(), lines: &lines };
    if asked.part {
        return Ok(view.part().into_response());
    }
    let found = if asked.q.trim().is_empty() { None } else { Some(log.search(asked.q.trim()).await?) };
    let title = format!("{} · {} · log", step.name(), project(&shown.build));
    // The page follows the log if it shows its end.
    let is_live = step.finished.is_none() && which == Which::Both && from + lines.len() as u64 > log.len();
    let next = shown.progress.lock().next;
    let live = is_live.then(|| format!("/builds/{}/live?v={next}", encoded(&shown.build.id)));
    Ok(guest.page(&title, Section::Builds, live, view.page(found.as_deref())).into_response())
}

struct View<'a> {
    build: &'a v1::Build,
    step: &'a Step,
    number: usize,
    asked: &'a Asked,
    from: u64,
    total: u64,
    lines: &'a [Line],
}

impl View<'_> {
    fn address(&self) -> String {
        format!("/builds/{}/steps/{}/log", encoded(&self.build.id), self.number)
    }

    fn query(&self, from: u64) -> String {
        let stream = if self.asked.stream.is_empty() {
            String::new()
        } else {
            format!("&stream={}", encoded(&self.asked.stream))
        };
        format!("{}?from={from}{stream}", self.address())
    }

    fn next(&self) -> u64 {
        self.from + self.lines.len() as u64
    }

    /// The lines, and where there are more.
    fn part(&self) -> Markup {
        let next = self.next();
        html! {
            @if self.lines.is_empty() && self.step.finished.is_some() { p .dim { "No output." } }
            ol .lines id={ "log" (self.number) } data-next=(next) data-step=[self.step.finished.is_none().then_some(self.number)] {
                @for (number, line) in (self.from..).zip(self.lines) { (line.row(number, &self.address())) }
            }
            @if next <= self.total {
                p .more-lines { a href=(self.query(next)) data-more={ (self.query(next)) "&part=true" } {
                    "Lines " (words::grouped(next)) " to " (words::grouped((next + LINES - 1).min(self.total))) " of " (words::grouped(self.total))
                } }
            }
        }
    }

    fn page(&self, found: Option<&[(u64, Line)]>) -> Markup {
        let build = format!("/builds/{}", encoded(&self.build.id));
        let done = self.step.finished.clone().unwrap_or_default();
        html! {
            nav .crumbs aria-label="Where you are" {
                a href=(build) { (project(self.build)) } span .dim { "/" }
                a href={ (build) "/steps/" (self.number) } { (self.step.name()) } span .dim { "/" }
                h1 { "log" }
            }
            div .logbar {
                form method="get" action=(self.address()) role="search" {
                    input type="search" name="q" value=(self.asked.q) placeholder="Search this log" aria-label="Search this log" data-key="/";
                    @if !self.asked.stream.is_empty() { input type="hidden" name="stream" value=(self.asked.stream); }
                    button .quiet type="submit" { "Search" }
                }
                span .dim { (words::count(self.total, "line", "lines")) }
                @for (digest, name) in [(&done.stdout_digest, "stdout"), (&done.stderr_digest, "stderr")] {
                    @if let Some(digest) = digest {
                        a href={ (self.address()) "?stream=" (name) } { (name) }
                        span .dim { (words::size(digest.size_bytes as u64)) " (" a href={ (self.address()) "/" (name) } download { "download" } ")" }
                    }
                }
            }
            @if let Some(found) = found { (self.found(found)) }
            @if self.from > 1 {
                p .more-lines { a href=(self.query(self.from.saturating_sub(LINES).max(1))) { "Earlier lines" } }
            }
            div .log.alone { (self.part()) }
        }
    }

    fn found(&self, found: &[(u64, Line)]) -> Markup {
        html! {
            section .found aria-label="Matches" {
                p .dim { (words::count(found.len() as u64, "line matches", "lines match")) }
                @if !found.is_empty() {
                    ol .lines { @for (number, line) in found { (line.row(*number, &self.address())) } }
                }
            }
        }
    }
}

/// The whole of one output, as it is stored.
pub(crate) async fn download(
    State(site): State<Site>,
    guest: Guest,
    Path((id, number, stream)): Path<(String, usize, String)>,
) -> Result<Response, Failure> {
    let shown = show(&site, &guest, &id).await?;
    let step = step(&shown, number)?;
    let done = step.finished.unwrap_or_default();
    let digest = match stream.as_str() {
        "stdout" => done.stdout_digest,
        "stderr" => done.stderr_digest,
        _ => None,
    };
    let Some(digest) = digest else { return Err(Failure::not_found("The step has no such output.")) };
    let name = format!("{}-{number}-{stream}.log", words::short(&shown.build.id, 13));
    download_blob(&guest.client, &Space::of(&shown.build), &digest, &name, "text/plain; charset=utf-8").await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Followed {
    /// The offset of the event after the last that the page shows.
    v: u64,
    /// The logs that it shows, as `STEP:NEXT`, separated by commas.
    logs: String,
}

impl Followed {
    /// Places of steps to the next line of each.
    fn logs(&self) -> BTreeMap<usize, u64> {
        let pairs = self.logs.split(',').filter_map(|pair| pair.split_once(':'));
        let parsed =
            pairs.filter_map(|(step, next)| Some((step.parse::<usize>().ok()?.checked_sub(1)?, next.parse().ok()?)));
        parsed.take(FOLLOWED).collect()
    }
}

/// What changes in a build, for a page that shows it.
pub(crate) async fn follow(
    State(site): State<Site>,
    guest: Guest,
    Path(id): Path<String>,
    Query(followed): Query<Followed>,
) -> Result<Response, Failure> {
    let shown = show(&site, &guest, &id).await?;
    // First of all, so that nothing is missed while the beginning is read.
    let news = shown.subscribe();
    let mut logs = followed.logs();
    let (mut first, is_ended) = {
        let progress = shown.progress.lock();
        let changed = progress.steps.iter().enumerate().filter(|(_, step)| step.revision >= followed.v);
        let steps = changed.map(|(place, _)| place).collect();
        let changes = Changes { steps, new_from: 0, all: true };
        (patches(&shown.build, &progress, &changes), progress.status.is_some())
    };
    for (place, next) in &mut logs {
        let Ok(step) = step(&shown, place + 1) else { continue };
        let log = Log::of(&guest.client, &shown.build, &step, Which::Both, &site.indexes).await?;
        let lines = log.lines(*next, usize::MAX).await?;
        first.push(added(&shown.build.id, *place, *next, &lines));
        *next += lines.len() as u64;
    }
    if is_ended {
        first.push(Patch::End);
    }
    let begin = stream::once(std::future::ready(Ok(event(&first))));
    Ok(answer(begin.chain(later(news, logs)), site.end(&guest.identity)))
}

fn added(build: &str, place: usize, from: u64, lines: &[Line]) -> Patch {
    let address = format!("/builds/{}/steps/{}/log", encoded(build), place + 1);
    let html = (from..).zip(lines).map(|(number, line)| line.row(number, &address).into_string()).collect();
    Patch::lines(place, from, html)
}

/// The changes from now on, with the lines of these logs. It ends if the page is too slow: it connects again then.
fn later(
    news: broadcast::Receiver<Arc<crate::live::News>>,
    logs: BTreeMap<usize, u64>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    stream::unfold((news, logs), |(mut news, mut logs)| async move {
        loop {
            let told = news.recv().await.ok()?;
            let mut all = vec![told.patches.clone()];
            for (place, next) in &mut logs {
                let Some(lines) = told.lines.get(place) else { continue };
                // What the page has already.
                let known = usize::try_from(next.saturating_sub(lines.from)).unwrap_or(usize::MAX);
                let fresh = lines.rows.get(known..).unwrap_or_default();
                if fresh.is_empty() {
                    continue;
                }
                let first = lines.from + known as u64;
                *next = first + fresh.len() as u64;
                all.push(match known {
                    0 => lines.written.clone(),
                    _ => Written::of(&[Patch::lines(*place, first, fresh.into())]),
                });
            }
            if all.iter().any(|written| !written.is_empty()) {
                return Some((Ok(message(&all)), (news, logs)));
            }
        }
    })
}
