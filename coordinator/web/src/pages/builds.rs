//! The list of builds: newest first, with filters.

use axum::extract::{Query, RawQuery};
use kiln_proto::v1::{self, Build, Status};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::Guest;
use crate::answer::Failure;
use crate::live::{Drawn, Patch};
use crate::markup::{Section, badge, encoded, nothing, words};

/// Builds on one page.
const SHOWN: u32 = 50;

/// What is asked for, as it stands in the address.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Filter {
    /// Words.
    pub(crate) q: String,
    pub(crate) status: String,
    pub(crate) project: String,
    pub(crate) user: String,
    pub(crate) branch: String,
    pub(crate) platform: String,
    pub(crate) before: String,
}

const STATUSES: [(&str, &str, &[Status]); 5] = [
    ("running", "Running", &[Status::Running]),
    ("succeeded", "Succeeded", &[Status::Succeeded]),
    ("failed", "Failed", &[Status::Failed]),
    ("farm-failed", "Farm failed", &[Status::FarmFailed]),
    ("cancelled", "Cancelled", &[Status::Cancelled]),
];

impl Filter {
    /// The request for these builds.
    pub(crate) fn request(&self, limit: u32) -> Result<v1::ListRequest, Failure> {
        let known = STATUSES.iter().find(|(name, _, _)| *name == self.status);
        if known.is_none() && !self.status.is_empty() {
            let names: Vec<&str> = STATUSES.iter().map(|(name, _, _)| *name).collect();
            return Err(Failure::bad(format!("unknown status `{}`; expected {}", self.status, names.join(", "))));
        }
        Ok(v1::ListRequest {
            limit,
            project: self.project.clone(),
            user: self.user.clone(),
            branch: self.branch.clone(),
            platform: self.platform.clone(),
            statuses: known
                .map(|(_, _, statuses)| statuses.iter().map(|status| (*status).into()).collect())
                .unwrap_or_default(),
            text: self.q.clone(),
            before: self.before.clone(),
            brief: true,
        })
    }

    fn named(&self) -> [(&'static str, &'static str, &str); 4] {
        [
            ("project", "Project", &self.project),
            ("user", "By", &self.user),
            ("branch", "Branch", &self.branch),
            ("platform", "Platform", &self.platform),
        ]
    }

    fn is_any(&self) -> bool {
        !self.q.is_empty() || !self.status.is_empty() || self.named().iter().any(|(_, _, value)| !value.is_empty())
    }

    /// The address of the same list with something else.
    fn with(&self, change: impl FnOnce(&mut Self)) -> String {
        let mut other = Self { before: String::new(), ..self.clone() };
        change(&mut other);
        let pairs = [
            ("q", &other.q),
            ("status", &other.status),
            ("project", &other.project),
            ("user", &other.user),
            ("branch", &other.branch),
            ("platform", &other.platform),
            ("before", &other.before),
        ];
        let set: Vec<String> = pairs
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        if set.is_empty() { "/builds".to_owned() } else { format!("/builds?{}", set.join("&")) }
    }
}

/// The page.
pub(crate) async fn list(
    guest: Guest,
    Query(filter): Query<Filter>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Failure> {
    let found = guest.client.builds().list(filter.request(SHOWN)?).await?.into_inner();
    let live = filter.before.is_empty().then(|| format!("/live/builds?{}", query.unwrap_or_default()));
    let content = html! {
        h1 .visually-hidden { "Builds" }
        (form(&filter))
        (rows(&filter, &found))
    };
    Ok(guest.page("Builds", Section::Builds, live, content))
}

fn form(filter: &Filter) -> Markup {
    let more = filter.named().iter().any(|(_, _, value)| !value.is_empty());
    html! {
        form .filters method="get" action="/builds" role="search" {
            input name="q" type="search" value=(filter.q) placeholder="Search by project, person, branch, commit or id"
                aria-label="Search" data-key="/";
            select name="status" aria-label="Status" {
                option value="" { "Any status" }
                @for (name, words, _) in STATUSES {
                    option value=(name) selected[filter.status == name] { (words) }
                }
            }
            button type="submit" { "Search" }
            details open[more] {
                summary { "More filters" }
                div .fields {
                    @for (name, words, value) in filter.named() {
                        label { span { (words) } input name=(name) value=(value); }
                    }
                }
            }
        }
    }
}

/// The list as it is now, for pages that show it.
pub(crate) async fn changed(guest: Guest, filter: Filter) -> Result<Vec<Drawn>, Failure> {
    let found = guest.client.builds().list(filter.request(SHOWN)?).await?.into_inner();
    Ok(vec![Patch::replace("list", rows(&filter, &found)).into()])
}

/// The rows of the list.
fn rows(filter: &Filter, found: &v1::ListResponse) -> Markup {
    html! {
        div #list {
            @if found.builds.is_empty() { (none(filter, found)) }
            @else {
                ol .builds {
                    @for build in &found.builds { li { (row(filter, build)) } }
                }
                (pages(filter, found))
            }
        }
    }
}

fn none(filter: &Filter, found: &v1::ListResponse) -> Markup {
    if found.more.is_empty() && !filter.is_any() && filter.before.is_empty() {
        return nothing(html! { p { "No builds yet." } p .dim { code { "kiln build" } " in a project starts one." } });
    }
    nothing(html! {
        p { "No build matches" @if !found.more.is_empty() { " so far" } "." }
        p {
            @if !found.more.is_empty() {
                a href=(filter.with(|other| other.before.clone_from(&found.more))) { "Search older builds" } " · "
            }
            a href="/builds" { "Show all builds" }
        }
    })
}

fn pages(filter: &Filter, found: &v1::ListResponse) -> Markup {
    html! {
        nav .pages aria-label="Pages" {
            @if !filter.before.is_empty() { a href=(filter.with(|_| ())) rel="first" { "Newest" } }
            @if !found.more.is_empty() {
                a href=(filter.with(|other| other.before.clone_from(&found.more))) rel="next" { "Older" }
            }
        }
    }
}

fn row(filter: &Filter, build: &Build) -> Markup {
    let source = build.source.clone().unwrap_or_default();
    let counts = build.counts.unwrap_or_default();
    html! {
        div .what {
            (badge(build.status()))
            a .name href={ "/builds/" (encoded(&build.id)) } {
                (if build.project.is_empty() { "unnamed" } else { &build.project })
            }
            @if !build.version.is_empty() { span .dim .version { (build.version) } }
        }
        div .from {
            @if !source.branch.is_empty() {
                a .plain href=(filter.with(|other| other.branch.clone_from(&source.branch))) { (source.branch) }
            }
            @if !source.commit.is_empty() {
                code title=(source.commit) { (words::short(&source.commit, 8)) }
                @if source.dirty { span .dim { "+ changes" } }
            }
            @if !build.user.is_empty() {
                a .plain .dim href=(filter.with(|other| other.user.clone_from(&build.user))) { (build.user) }
            }
            @if build.platforms.len() > 1 { span .dim { (words::count(build.platforms.len() as u64, "platform", "platforms")) } }
        }
        div .progress {
            @if counts.steps > 0 {
                span { (words::grouped(counts.ended.into())) "/" (words::grouped(counts.steps.into())) }
                @if counts.hits > 0 { span .dim { (words::percent(counts.hits.into(), counts.ended.into())) "% cached" } }
            }
        }
        div .when {
            span .took { (took(build)) }
            @if let Some(started) = &build.started { span .dim { (words::ago(started)) } }
        }
        @if !build.message.is_empty() && build.status() != Status::Succeeded {
            p .message { (words::short(&first_line(&build.message), 240)) }
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(240).collect()
}

/// How long a build took, or has taken so far.
pub(crate) fn took(build: &Build) -> Markup {
    let Some(started) = &build.started else { return html! {} };
    let began = words::milliseconds(started);
    let ended = build.finished.as_ref().map(words::milliseconds);
    let took = u64::try_from(ended.unwrap_or_else(words::now) - began).unwrap_or(0);
    html! { span data-since=[ended.is_none().then_some(began)] { (words::duration(took)) } }
}
