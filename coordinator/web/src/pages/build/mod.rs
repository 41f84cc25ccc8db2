//! One build: what became of it, its steps as a graph and over time, and their output.

mod dockerfile;
mod graph;
mod log;
mod steps;
mod top;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use kiln_proto::v1::{self, CancelRequest, GetRequest, Status};
use maud::html;
use tonic::Code;

use super::Guest;
use crate::answer::Failure;
use crate::live::{Changes, Patch, Shown};
use crate::markup::{Section, encoded, notified, words};
use crate::site::Site;
use kiln_web_model::Progress;
use kiln_web_model::graph::Graph;

pub(crate) use log::{download as download_log, follow, page as log_page, step};
pub(in crate::pages) use steps::target;

/// The build with this id, if this visitor may see it.
pub(crate) async fn get(guest: &Guest, id: &str) -> Result<v1::Build, Failure> {
    let request = GetRequest { build: id.to_owned(), user: guest.identity.name.clone() };
    match guest.client.builds().get(request).await {
        Ok(build) => Ok(build.into_inner()),
        // An id that there is not and one of another tenant are told apart by nothing.
        Err(status) if status.code() == Code::NotFound => Err(Failure::not_found("There is no such build.")),
        Err(status) => Err(status.into()),
    }
}

/// The build with this id, with what has happened in it.
pub(crate) async fn show(site: &Site, guest: &Guest, id: &str) -> Result<Arc<Shown>, Failure> {
    let build = get(guest, id).await?;
    site.builds.show(&guest.client, &guest.identity.tenant, build).await
}

/// What is between a page's frame.
fn content(build: &v1::Build, progress: &Progress, files: &[(String, String)]) -> maud::Markup {
    let graph = Graph::of(progress);
    html! {
        (top::top(build, progress))
        @if progress.steps.len() > 1 {
            section aria-labelledby="graph-title" {
                h2 #graph-title { "Graph" }
                (graph::legend())
                (graph::graph(build, progress, &graph))
            }
        }
        (dockerfile::sections(build, progress, files))
        (steps::section(build, progress))
    }
}

/// The page.
pub(crate) async fn page(State(site): State<Site>, guest: Guest, Path(id): Path<String>) -> Result<Response, Failure> {
    let record = get(&guest, &id).await?;
    if record.id != id {
        return Ok(Redirect::to(&format!("/builds/{}", encoded(&record.id))).into_response());
    }
    // What was read for others may be older.
    let notifications = record.notifications.clone();
    let shown = site.builds.show(&guest.client, &guest.identity.tenant, record).await?;
    let build = &shown.build;
    // Rendered from a copy: its Dockerfiles are read meanwhile, and nobody else waits for it.
    let progress = shown.progress.lock().clone();
    let files = dockerfile::read(&guest.client, build, &progress).await;
    let live = progress.status.is_none().then(|| format!("/builds/{}/live?v={}", encoded(&build.id), progress.next));
    let content = html! { (content(build, &progress, &files)) (notified::section(&notifications)) };
    let title = format!("{} · {}", project(build), words::status(status(build, &progress)));
    Ok(guest.page(&title, Section::Builds, live, content).into_response())
}

pub(in crate::pages) fn project(build: &v1::Build) -> &str {
    if build.project.is_empty() { "unnamed" } else { &build.project }
}

/// A build's status by its events, which are newer than its record.
pub(in crate::pages) fn status(build: &v1::Build, progress: &Progress) -> Status {
    progress.status.unwrap_or(build.status())
}

/// What pages that show a build are told of these changes.
pub(crate) fn patches(build: &v1::Build, progress: &Progress, changes: &Changes) -> Vec<Patch> {
    let mut patches = Vec::new();
    if changes.all || !changes.steps.is_empty() {
        patches.push(Patch::replace("top", top::top(build, progress)));
    }
    let axis = steps::Axis::of(build, progress);
    for place in &changes.steps {
        let Some(step) = progress.steps.get(*place) else { continue };
        if *place >= changes.new_from {
            patches.push(Patch::append("steps", format!("r{}", place + 1), steps::row(&axis, *place, step)));
        }
        patches.push(Patch::replace(format!("s{}", place + 1), steps::summary(&axis, *place, step)));
    }
    let is_end = progress.status.is_some();
    let graph = Graph::of(progress);
    if is_end || changes.steps.iter().any(|place| *place >= changes.new_from) {
        patches.push(Patch::replace("graph", graph::graph(build, progress, &graph)));
    } else {
        patches.extend(graph::classes(&graph, changes));
    }
    patches
}

/// Cancels a build.
pub(crate) async fn cancel(guest: Guest, Path(id): Path<String>) -> Result<Redirect, Failure> {
    let build = get(&guest, &id).await?.id;
    guest.client.builds().cancel(CancelRequest { build: build.clone(), request_id: String::new() }).await?;
    Ok(Redirect::to(&format!("/builds/{}", encoded(&build))))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use kiln_proto::protobuf::Timestamp;
    use kiln_proto::v1::step_finished::Cache;
    use kiln_proto::v1::{BuildStarted, Event, PlannedStep, StepFinished, StepQueued, StepRef, event};

    fn reference(name: &str) -> StepRef {
        StepRef { step: name.into(), platform: "linux/amd64".into(), shards: 1, ..StepRef::default() }
    }

    fn event(offset: u64, seconds: i64, event: event::Event) -> Event {
        Event { offset, at: Some(Timestamp { seconds, nanos: 0 }), event: Some(event) }
    }

    /// A build of many steps, each of which needs some before it.
    fn large(steps: usize) -> Progress {
        let planned = (0..steps).map(|number| PlannedStep {
            step: Some(reference(&format!("step-{number}"))),
            needs: (1..4).filter_map(|back| number.checked_sub(back * 7)).map(|need| format!("step-{need}")).collect(),
            ..PlannedStep::default()
        });
        let started = BuildStarted { steps: planned.collect(), ..BuildStarted::default() };
        let mut progress = Progress::default();
        progress.apply(&event(0, 0, event::Event::BuildStarted(started)));
        for number in 0..steps {
            let (step, at) = (Some(reference(&format!("step-{number}"))), number as i64);
            let offset = number as u64 * 2 + 1;
            progress.apply(&event(offset, at, event::Event::StepQueued(StepQueued { step: step.clone() })));
            let cache = if number % 3 == 0 { Cache::Hit } else { Cache::Miss };
            let done = StepFinished { step, cache: cache.into(), ok: true, ..StepFinished::default() };
            progress.apply(&event(offset + 1, at + 3, event::Event::StepFinished(done)));
        }
        progress
    }

    /// What a large build's page takes to render; prints it and asserts no time.
    #[test]
    #[ignore = "a measurement"]
    fn a_page_of_two_thousand_steps_is_rendered() {
        let (build, progress) =
            (v1::Build { id: "0190".into(), project: "large".into(), ..Default::default() }, large(2_000));
        for _ in 0..5 {
            let began = Instant::now();
            let page = content(&build, &progress, &[]).into_string();
            println!("{} steps, {} KiB in {:?}", progress.steps.len(), page.len() >> 10, began.elapsed());
            assert!(page.contains("step-1999"));
        }
    }
}
