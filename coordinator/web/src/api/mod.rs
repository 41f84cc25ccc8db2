//! The same as the pages show, as JSON for scripts, below `/api/v1`; `openapi.json` describes it.

mod objects;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use kiln_proto::v1::{ExplainRequest, LayerStatsRequest, ListArtifactsRequest, ListMountsRequest, StatusRequest};
use serde::Deserialize;

use crate::answer::Failure;
use crate::log::{Log, Which};
use crate::pages::build::{get, show, step};
use crate::pages::layers::{Contents, ROWS};
use crate::pages::{Filter, Guest, artifact, rates, tested};
use crate::site::Site;
use kiln_web_contents::Waste;
use objects::{Artifact, Build, Cache, Difference, Explanation, Farm, Layers, Step, Summary, Test, TestCounts, Usage};

/// Builds and artifacts of one answer.
const LISTED: u32 = 50;
const MAX_LISTED: u32 = 500;
/// Tests of one answer.
const TESTS: usize = 1_000;
const MAX_TESTS: usize = 10_000;
/// Lines of one answer.
const LINES: usize = 10_000;

const DESCRIPTION: &str = include_str!("openapi.json");

/// What describes all of it.
pub(crate) async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Limit {
    limit: Option<u32>,
    name: String,
}

impl Limit {
    fn get(&self) -> u32 {
        self.limit.unwrap_or(LISTED).clamp(1, MAX_LISTED)
    }
}

/// `GET /builds`.
pub(crate) async fn builds(
    guest: Guest,
    Query(filter): Query<Filter>,
    Query(limit): Query<Limit>,
) -> Result<Response, Failure> {
    let found = guest.client.builds().list(filter.request(limit.get())?).await?.into_inner();
    let builds: Vec<Summary> = found.builds.iter().map(Summary::of).collect();
    let more = Some(found.more).filter(|more| !more.is_empty());
    Ok(Json(serde_json::json!({ "builds": builds, "more": more })).into_response())
}

/// `GET /builds/{id}`.
pub(crate) async fn build(
    State(site): State<Site>,
    guest: Guest,
    Path(id): Path<String>,
) -> Result<Json<Build>, Failure> {
    let record = get(&guest, &id).await?;
    let calls = record.notifications.clone();
    let shown = site.builds.show(&guest.client, &guest.identity.tenant, record).await?;
    let progress = shown.progress.lock();
    Ok(Json(Build::of(&shown.build, &progress, &calls)))
}

/// `GET /builds/{id}/steps/{step}`, with what its run used, and why it ran, if that is known.
pub(crate) async fn one_step(
    State(site): State<Site>,
    guest: Guest,
    Path((id, number)): Path<(String, usize)>,
) -> Result<Response, Failure> {
    let shown = show(&site, &guest, &id).await?;
    let step = step(&shown, number)?;
    let object = Step::of(number, &step, &shown.progress.lock());
    let usage = step.usage().map(Usage::of);
    let request = ExplainRequest {
        instance: shown.build.instance.clone(),
        project: shown.build.project.clone(),
        step: step.at.step.clone(),
        build: shown.build.id.clone(),
    };
    let explained = guest.client.cache().explain(request).await.map(|explained| explained.into_inner().explanations);
    let of_this = |one: &kiln_proto::v1::Explanation| {
        one.step.as_ref() == Some(&step.at) && one.run.as_ref().is_some_and(|run| run.build == shown.build.id)
    };
    let explanation = explained.ok().and_then(|all| all.into_iter().find(of_this)).map(|one| Explanation {
        reason: one.run.as_ref().map(|run| run.reason().as_str_name().to_lowercase()).unwrap_or_default(),
        forgotten: one.forgotten,
        differences: one.differences.iter().map(Difference::of).collect(),
    });
    Ok(Json(serde_json::json!({ "step": object, "explanation": explanation, "usage": usage })).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Lines {
    from: u64,
    stream: String,
}

/// `GET /builds/{id}/steps/{step}/log`: plain text, without what a terminal would obey.
pub(crate) async fn log(
    State(site): State<Site>,
    guest: Guest,
    Path((id, number)): Path<(String, usize)>,
    Query(Lines { from, stream }): Query<Lines>,
) -> Result<Response, Failure> {
    let shown = show(&site, &guest, &id).await?;
    let step = step(&shown, number)?;
    let log = Log::of(&guest.client, &shown.build, &step, Which::parse(&stream), &site.indexes).await?;
    let lines = log.lines(from.max(1), LINES).await?;
    let text: String = lines.iter().map(|line| line.plain() + "\n").collect();
    let next = from.max(1) + lines.len() as u64;
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned())];
    let place = [("kiln-lines", log.len().to_string()), ("kiln-next-line", next.to_string())];
    Ok((headers, place, text).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tests {
    step: usize,
    from: usize,
    limit: Option<usize>,
}

/// `GET /builds/{id}/tests`: those that failed first.
pub(crate) async fn tests(
    State(site): State<Site>,
    guest: Guest,
    Path(id): Path<String>,
    Query(asked): Query<Tests>,
) -> Result<Response, Failure> {
    let shown = show(&site, &guest, &id).await?;
    let steps = tested::steps(&shown.progress.lock(), asked.step);
    let summary = tested::sum(steps.iter().map(|(_, step)| step));
    let (all, is_complete) = tested::of(&guest, &shown.build, steps).await;
    let limit = asked.limit.unwrap_or(TESTS).clamp(1, MAX_TESTS);
    let tests: Vec<Test> = all.iter().skip(asked.from).take(limit).map(Test::of).collect();
    let next = asked.from.saturating_add(tests.len());
    let summary = summary.map(|summary| TestCounts::of(&summary));
    let more = (next < all.len()).then_some(next);
    Ok(Json(serde_json::json!({ "summary": summary, "complete": is_complete, "tests": tests, "more": more }))
        .into_response())
}

/// `GET /farm`.
pub(crate) async fn farm(guest: Guest) -> Result<Json<Farm>, Failure> {
    Ok(Json(Farm::of(&guest.client.farm().status(StatusRequest {}).await?.into_inner())))
}

/// `GET /cache`.
pub(crate) async fn cache(guest: Guest) -> Result<Json<Cache>, Failure> {
    let stats = guest.client.cache().stats(LayerStatsRequest::default()).await?.into_inner();
    // Whoever may read the cache need not see builds.
    let over_time = rates::of(&guest).await.unwrap_or_default();
    let mounts = guest.client.cache().mounts(ListMountsRequest::default()).await?.into_inner().mounts;
    Ok(Json(Cache::of(&stats, over_time, &mounts)))
}

/// `GET /artifacts`.
pub(crate) async fn artifacts(guest: Guest, Query(limit): Query<Limit>) -> Result<Response, Failure> {
    let request = ListArtifactsRequest { name: limit.name.clone(), limit: limit.get() };
    let found = guest.client.artifacts().list(request).await?.into_inner();
    let artifacts: Vec<Artifact> = found.artifacts.iter().map(Artifact::of).collect();
    Ok(Json(serde_json::json!({ "artifacts": artifacts })).into_response())
}

/// `GET /artifacts/{id}`.
pub(crate) async fn one_artifact(guest: Guest, Path(id): Path<String>) -> Result<Json<Artifact>, Failure> {
    Ok(Json(Artifact::of(&artifact(&guest, &id).await?)))
}

/// `GET /artifacts/{id}/layers`: what is in them, and the space that is wasted.
pub(crate) async fn layers(
    State(site): State<Site>,
    guest: Guest,
    Path(id): Path<String>,
) -> Result<Json<Layers>, Failure> {
    let contents = Contents::of(&site, &guest, &id).await?;
    Ok(Json(Layers::of(&contents, &Waste::of(&contents.listings, ROWS))))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_address_is_described() {
        let document: serde_json::Value = serde_json::from_str(super::DESCRIPTION).unwrap();
        let routes = include_str!("../routes.rs");
        let (_, scripts) = routes.split_once("fn scripts()").unwrap();
        let (scripts, _) = scripts.split_once("\n}\n").unwrap();
        let served: Vec<&str> = scripts.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let described: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        for path in &served {
            assert!(*path == "/openapi.json" || described.iter().any(|one| one == path), "`{path}` is not described");
        }
        assert_eq!(served.len(), described.len() + 1);
    }
}
