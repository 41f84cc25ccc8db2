//! Two builds side by side: what was different, and what got slower.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use kiln_proto::v1::{self, ListRequest, StepRef};
use maud::{Markup, html};
use serde::Deserialize;

use super::Guest;
use super::build::{project, show, status};
use crate::answer::Failure;
use crate::live::Shown;
use crate::markup::{Section, badge, encoded, nothing, words};
use crate::site::Site;
use kiln_web_model::{Progress, Step};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    /// The earlier build; without it, the one of the same project before the later one.
    a: String,
    b: String,
}

type Key = (String, String, String, u32);

fn key(at: &StepRef) -> Key {
    (at.platform.clone(), at.target.clone(), at.step.clone(), at.shard)
}

/// A step in both builds, with its numbers.
struct Pair<'a> {
    a: Option<(usize, &'a Step)>,
    b: Option<(usize, &'a Step)>,
}

impl Pair<'_> {
    fn name(&self) -> String {
        self.b.or(self.a).map(|(_, step)| step.name()).unwrap_or_default()
    }

    /// How much longer it took, in milliseconds.
    fn slower(&self) -> i64 {
        let took = |one: &Option<(usize, &Step)>| one.and_then(|(_, step)| step.took()).unwrap_or(0) as i64;
        took(&self.b) - took(&self.a)
    }

    /// Whether it was the same action; none if one of the two is not known.
    fn same(&self) -> Option<bool> {
        let action = |one: &Option<(usize, &Step)>| one.and_then(|(_, step)| step.finished.clone()?.action_digest);
        Some(action(&self.a)? == action(&self.b)?)
    }
}

fn pairs<'a>(a: &'a Progress, b: &'a Progress) -> Vec<Pair<'a>> {
    let mut all: BTreeMap<Key, Pair<'a>> = BTreeMap::new();
    for (number, step) in a.steps.iter().enumerate() {
        all.insert(key(&step.at), Pair { a: Some((number + 1, step)), b: None });
    }
    for (number, step) in b.steps.iter().enumerate() {
        all.entry(key(&step.at)).or_insert(Pair { a: None, b: None }).b = Some((number + 1, step));
    }
    let mut pairs: Vec<Pair<'a>> = all.into_values().collect();
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.slower().abs()));
    pairs
}

/// The page.
pub(crate) async fn page(
    State(site): State<Site>,
    guest: Guest,
    Query(asked): Query<Asked>,
) -> Result<Markup, Failure> {
    let b = show(&site, &guest, &asked.b).await?;
    let before = if asked.a.is_empty() { previous(&guest, &b.build).await? } else { Some(asked.a.clone()) };
    let Some(before) = before else {
        let content = nothing(html! { p { "There is no earlier build of this project." } });
        return Ok(guest.page("Compare", Section::Builds, None, content));
    };
    let a = show(&site, &guest, &before).await?;
    let (of_a, of_b) = (a.progress.lock().clone(), b.progress.lock().clone());
    let pairs = pairs(&of_a, &of_b);
    let content = html! {
        nav .crumbs aria-label="Where you are" {
            a href={ "/builds/" (encoded(&b.build.id)) } { (project(&b.build)) } span .dim { "/" } h1 { "Compared with an earlier build" }
        }
        (heads(&a, &of_a, &b, &of_b))
        section aria-labelledby="steps-title" {
            h2 #steps-title { "Steps" }
            (changed(&pairs))
            (table(&a.build, &b.build, &of_a, &of_b, &pairs))
        }
    };
    Ok(guest.page("Compare", Section::Builds, None, content))
}

/// The build of the same project before this one.
async fn previous(guest: &Guest, build: &v1::Build) -> Result<Option<String>, Failure> {
    let request = ListRequest {
        limit: 1,
        project: build.project.clone(),
        before: build.id.clone(),
        brief: true,
        ..ListRequest::default()
    };
    let found = guest.client.builds().list(request).await?.into_inner();
    Ok(found.builds.into_iter().next().map(|build| build.id))
}

fn heads(a: &Arc<Shown>, of_a: &Progress, b: &Arc<Shown>, of_b: &Progress) -> Markup {
    let now = words::now();
    let took = |progress: &Progress| {
        let (begin, end) = progress.span(now);
        words::duration((end - begin) as u64)
    };
    let source = |shown: &Arc<Shown>| shown.build.source.clone().unwrap_or_default();
    let (at, now) = (source(a), source(b));
    let commit = |source: &v1::Source| {
        format!("{}{}", words::short(&source.commit, 12), if source.dirty { " + changes" } else { "" })
    };
    let rows = [
        ("Version", a.build.version.clone(), b.build.version.clone()),
        ("Branch", at.branch.clone(), now.branch.clone()),
        ("Commit", commit(&at), commit(&now)),
        ("By", a.build.user.clone(), b.build.user.clone()),
        ("Platforms", a.build.platforms.join(", "), b.build.platforms.join(", ")),
        ("Took", took(of_a), took(of_b)),
    ];
    html! {
        div .scroll {
            table .compare {
                thead { tr {
                    th {}
                    th { a href={ "/builds/" (encoded(&a.build.id)) } { (words::short(&a.build.id, 13)) } " " (badge(status(&a.build, of_a))) }
                    th { a href={ "/builds/" (encoded(&b.build.id)) } { (words::short(&b.build.id, 13)) } " " (badge(status(&b.build, of_b))) }
                } }
                tbody {
                    @for (name, before, after) in rows {
                        @if !before.is_empty() || !after.is_empty() {
                            tr class=[(before != after).then_some("different")] { td .dim { (name) } td { (before) } td { (after) } }
                        }
                    }
                }
            }
        }
    }
}

fn changed(pairs: &[Pair<'_>]) -> Markup {
    let count = |is: &dyn Fn(&Pair<'_>) -> bool| pairs.iter().filter(|pair| is(pair)).count() as u64;
    let (new, gone) = (count(&|pair| pair.a.is_none()), count(&|pair| pair.b.is_none()));
    let (same, other) = (count(&|pair| pair.same() == Some(true)), count(&|pair| pair.same() == Some(false)));
    html! {
        p .dim {
            (words::grouped(same)) " the same, " (words::grouped(other)) " changed"
            @if new > 0 { ", " (words::grouped(new)) " new" }
            @if gone > 0 { ", " (words::grouped(gone)) " gone" }
            ". What took most more or less time is first."
        }
    }
}

fn table(a: &v1::Build, b: &v1::Build, of_a: &Progress, of_b: &Progress, pairs: &[Pair<'_>]) -> Markup {
    let cell = |build: &v1::Build, progress: &Progress, one: Option<(usize, &Step)>| {
        html! {
            @match one {
                Some((number, step)) => a .plain href={ "/builds/" (encoded(&build.id)) "/steps/" (number) } {
                    (step.outcome(progress).word().replace('-', " "))
                    @if let Some(took) = step.took() { " " (words::duration(took)) }
                },
                None => span .dim { "none" },
            }
        }
    };
    html! {
        div .scroll {
            table {
                thead { tr { th { "Step" } th { "Before" } th { "After" } th .number { "Difference" } th { "Key" } } }
                tbody {
                    @for pair in pairs {
                        @let slower = pair.slower();
                        tr {
                            td { (pair.name()) }
                            td { (cell(a, of_a, pair.a)) }
                            td { (cell(b, of_b, pair.b)) }
                            td .number class=[(slower > 1000).then_some("bad")] {
                                (if slower > 0 { "+" } else if slower < 0 { "−" } else { "" }) (words::duration(slower.unsigned_abs()))
                            }
                            td .dim { (match pair.same() { Some(true) => "same", Some(false) => "changed", None => "" }) }
                        }
                    }
                }
            }
        }
    }
}
