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
use crate::markup::{Section, encoded, words};
use crate::model::Progress;
use crate::model::graph::Graph;
use crate::site::Site;

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
fn content(build: &v1::Build, progress: &Progress, file: Option<&str>) -> maud::Markup {
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
        (dockerfile::section(build, progress, file))
        (steps::section(build, progress))
    }
}

/// The page.
pub(crate) async fn page(State(site): State<Site>, guest: Guest, Path(id): Path<String>) -> Result<Response, Failure> {
    let shown = show(&site, &guest, &id).await?;
    let build = &shown.build;
    if build.id != id {
        return Ok(Redirect::to(&format!("/builds/{}", encoded(&build.id))).into_response());
    }
    // Rendered from a copy: the file is read meanwhile, and nobody else waits for it.
    let progress = shown.progress.lock().clone();
    let file = dockerfile::read(&guest.client, build, &progress).await;
    let live = progress.status.is_none().then(|| format!("/builds/{}/live?v={}", encoded(&build.id), progress.next));
    let content = content(build, &progress, file.as_deref());
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
    use crate::model::tests::large;

    /// What a large build's page takes to render; prints it and asserts no time.
    #[test]
    #[ignore = "a measurement"]
    fn a_page_of_two_thousand_steps_is_rendered() {
        let (build, progress) =
            (v1::Build { id: "0190".into(), project: "large".into(), ..Default::default() }, large(2_000));
        for _ in 0..5 {
            let began = Instant::now();
            let page = content(&build, &progress, None).into_string();
            println!("{} steps, {} KiB in {:?}", progress.steps.len(), page.len() >> 10, began.elapsed());
            assert!(page.contains("step-1999"));
        }
    }
}
