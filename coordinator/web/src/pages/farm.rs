//! The farm: its workers with their load, what waits and for what, its store, and what the cache saves.

use axum::extract::State;
use axum::response::Response;
use kiln_auth::Role;
use kiln_proto::property;
use kiln_proto::v1::{self, LayerStatsRequest, ListMountsRequest, StatusRequest};
use maud::{Markup, html};

use super::{Guest, rates};
use crate::answer::Failure;
use crate::live::{Patch, Subject, stream};
use crate::markup::{Section, encoded, nothing, words};
use crate::site::Site;

/// Rows of what hits most and least.
const STEPS: usize = 15;
/// Cache mounts that are listed.
const MOUNTS: usize = 100;

/// The page.
pub(crate) async fn page(guest: Guest) -> Result<Markup, Failure> {
    let content = html! {
        h1 { "Farm" }
        (look(&guest).await?)
        (caches(&guest).await)
        (mounts(&guest).await)
    };
    Ok(guest.page("Farm", Section::Farm, Some("/live/farm?".to_owned()), content))
}

/// What changes on it.
pub(crate) async fn live(State(site): State<Site>, guest: Guest) -> Result<Response, Failure> {
    // Whoever follows may see the farm, whether or not somebody else looks already.
    guest.client.farm().status(StatusRequest {}).await?;
    let subject = Subject { tenant: guest.identity.tenant.clone(), what: format!("farm {}", sees_tenants(&guest)) };
    let looking = guest.clone();
    let look = move || {
        let guest = looking.clone();
        async move { Ok(vec![Patch::replace("farm", look(&guest).await?).into()]) }
    };
    let shown = site.feeds.follow(subject, look).await?;
    Ok(stream(shown, site.end(&guest.identity)))
}

/// Whether they are told whose actions wait: a feed is shared only by those who see the same.
fn sees_tenants(guest: &Guest) -> bool {
    guest.identity.roles.contains(&Role::FarmAdmin)
}

async fn look(guest: &Guest) -> Result<Markup, Failure> {
    let mut status = guest.client.farm().status(StatusRequest {}).await?.into_inner();
    status.workers.sort_by(|one, other| (platform(one), &one.worker).cmp(&(platform(other), &other.worker)));
    Ok(html! { div #farm { (tiles(&status)) (queues(&status, sees_tenants(guest))) (workers(&status)) } })
}

fn platform(worker: &v1::Worker) -> String {
    let environment = worker.environment.clone().unwrap_or_default();
    let isa = platform_of(&environment.isa);
    if environment.os.is_empty() { isa.to_owned() } else { format!("{isa} · {}", environment.os) }
}

fn tiles(status: &v1::FarmStatus) -> Markup {
    let connected = status.workers.iter().filter(|worker| worker.connected);
    let sum = |of: &dyn Fn(&v1::Worker) -> Option<v1::Capacity>| {
        let parts = connected.clone().filter_map(of);
        parts.fold((0_u64, 0_u64), |(cpus, memory), one| (cpus + u64::from(one.milli_cpus), memory + one.memory_bytes))
    };
    let (capacity, used) = (sum(&|worker| worker.capacity), sum(&|worker| worker.used));
    let running: u64 = status.workers.iter().map(|worker| u64::from(worker.running)).sum();
    let queued: u64 = status.queues.iter().map(|queue| queue.queued).sum();
    html! {
        div .tiles {
            div .tile { span .dim { "Workers" } strong { (connected.clone().count()) }
                span .dim { @if status.away.is_empty() { "all are here" } @else { (status.away.len()) " away" } } }
            div .tile { span .dim { "CPUs" } strong { (words::percent(used.0, capacity.0)) "%" }
                span .dim { (cpus(used.0)) " of " (cpus(capacity.0)) " reserved" } }
            div .tile { span .dim { "Memory" } strong { (words::percent(used.1, capacity.1)) "%" }
                span .dim { (words::size(used.1)) " of " (words::size(capacity.1)) } }
            div .tile { span .dim { "Actions" } strong { (words::grouped(running)) } span .dim { "running, " (words::grouped(queued)) " waiting" } }
            @if status.store_capacity_bytes > 0 {
                div .tile { span .dim { "Store" } strong { (words::size(status.store_bytes)) }
                    span .dim { (words::percent(status.store_bytes, status.store_capacity_bytes)) "% of " (words::size(status.store_capacity_bytes)) } }
            }
        }
    }
}

fn cpus(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{:.1}", milli as f64 / 1000.0) }
}

fn queues(status: &v1::FarmStatus, sees_tenants: bool) -> Markup {
    let mut queues: Vec<(String, Markup, &v1::Queue)> =
        status.queues.iter().map(|queue| (asked_platform(queue), tenant(queue, sees_tenants), queue)).collect();
    // The longest wait first, within its platform.
    queues.sort_by(|one, other| (&one.0, other.2.oldest_ms).cmp(&(&other.0, one.2.oldest_ms)));
    let has_tenants = status.queues.iter().any(|queue| queue.of_another_tenant || !queue.tenant.is_empty());
    let mut last = None;
    html! {
        section aria-labelledby="queues-title" {
            h2 #queues-title { "Queues" }
            @if queues.is_empty() { p .dim { "Nothing waits." } }
            @else {
                ul .rows {
                    @for (platform, tenant, queue) in &queues {
                        @if last != Some(platform) { li .group { (platform) } }
                        @let () = last = Some(platform);
                        @let mut properties: Vec<_> = queue.platform.iter().collect();
                        @let () = properties.sort();
                        li {
                            div .head {
                                strong { (words::count(queue.queued, "action", "actions")) }
                                @if has_tenants { span { "of " (tenant) } }
                                span .dim { "the first for " (words::duration(queue.oldest_ms)) }
                                @if !queue.waits_for.is_empty() { span { "waits for " (words::quoted(&queue.waits_for)) } }
                            }
                            div .chips { @for (name, value) in properties { code { (name) "=" (value) } } }
                        }
                    }
                }
            }
        }
    }
}

fn tenant(queue: &v1::Queue, sees_tenants: bool) -> Markup {
    html! {
        @if queue.of_another_tenant && !sees_tenants { span .dim { "another tenant" } }
        @else if queue.tenant.is_empty() { span .dim { "the default tenant" } }
        @else { strong { (queue.tenant) } }
    }
}

/// The platform that a queue's actions ask for.
fn asked_platform(queue: &v1::Queue) -> String {
    let asked = |name: &str| queue.platform.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let isa = asked(property::ISA).map_or("any platform", platform_of);
    asked(property::OS).map_or(isa.to_owned(), |os| format!("{isa} · {os}"))
}

/// An instruction set as a platform.
fn platform_of(isa: &str) -> &str {
    match isa {
        "x86-64" => "linux/amd64",
        "arm-a64" => "linux/arm64",
        other => other,
    }
}

fn workers(status: &v1::FarmStatus) -> Markup {
    let mut last = None;
    html! {
        section aria-labelledby="workers-title" {
            h2 #workers-title { "Workers" }
            @if status.workers.is_empty() && status.away.is_empty() {
                (nothing(html! { p { "No worker is connected." } p .dim { code { "kiln-worker --coordinator URL" } " adds one." } }))
            }
            ul .rows {
                @for worker in &status.workers {
                    @let platform = platform(worker);
                    @if last.as_ref() != Some(&platform) { li .group { (platform) } }
                    @let () = last = Some(platform);
                    (row(worker, false))
                }
                @if !status.away.is_empty() { li .group { "Away" } }
                @for worker in &status.away { (row(worker, true)) }
            }
        }
    }
}

fn row(worker: &v1::Worker, is_away: bool) -> Markup {
    let environment = worker.environment.clone().unwrap_or_default();
    let (capacity, used) = (worker.capacity.unwrap_or_default(), worker.used.unwrap_or_default());
    let state = match (is_away || !worker.connected, worker.distrusted, worker.draining) {
        (true, _, _) => "away",
        (_, true, _) => "distrusted",
        (_, _, true) => "draining",
        _ => "connected",
    };
    let mut tools: Vec<_> = environment.tools.iter().collect();
    tools.sort();
    let mut labels: Vec<_> = environment.labels.iter().collect();
    labels.sort();
    html! {
        li {
            details id={ "w-" (encoded(&worker.worker)) } {
                summary .head {
                    span class={ "badge " (state) } { (state) }
                    strong { (worker.worker) }
                    (load("CPUs", u64::from(used.milli_cpus), u64::from(capacity.milli_cpus), &format!("{} of {}", cpus(used.milli_cpus.into()), cpus(capacity.milli_cpus.into()))))
                    (load("memory", used.memory_bytes, capacity.memory_bytes, &format!("{} of {}", words::size(used.memory_bytes), words::size(capacity.memory_bytes))))
                    span .dim { (words::count(worker.running.into(), "action", "actions")) }
                }
                dl .facts {
                    @for (name, value) in [
                        ("System", &environment.os), ("libc", &environment.libc), ("CPU", &environment.cpu), ("Level", &environment.cpu_level),
                        ("Kernel", &environment.kernel), ("Isolation", &environment.sandbox), ("Docker", &environment.docker),
                        ("Roots", &environment.roots), ("Version", &worker.version),
                    ] {
                        @if !value.is_empty() { div { dt { (name) } dd { (value) } } }
                    }
                    @if let Some(seen) = &worker.last_seen { div { dt { "Seen" } dd { (words::ago(seen)) } } }
                    @if !worker.tenants.is_empty() { div { dt { "Tenants" } dd { (worker.tenants.join(", ")) } } }
                }
                @if !labels.is_empty() { div .chips { @for (name, value) in labels { code { (name) "=" (value) } } } }
                @if !tools.is_empty() {
                    div .chips { @for (name, version) in tools { code title=(version) { (name) } } }
                }
            }
        }
    }
}

fn load(name: &str, used: u64, capacity: u64, words: &str) -> Markup {
    html! {
        span .load title={ (words) " " (name) } {
            svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                rect class="run" width=(words::percent(used, capacity).min(100)) height="10" {}
            }
            span .dim { (words) }
        }
    }
}

/// What the cache saves, by step; nothing for whoever may not see it.
async fn caches(guest: &Guest) -> Markup {
    let Ok(stats) = guest.client.cache().stats(LayerStatsRequest::default()).await else { return html! {} };
    let rates = rates::of(guest).await.unwrap_or_default();
    let stats = stats.into_inner();
    let total = stats.total.unwrap_or_default();
    let asked = |counts: &v1::LayerCounts| counts.hits + counts.misses + counts.merged;
    let mut steps: Vec<(&v1::StepStats, v1::LayerCounts)> =
        stats.steps.iter().map(|step| (step, step.counts.unwrap_or_default())).collect();
    steps.sort_by_key(|(_, counts)| std::cmp::Reverse(asked(counts)));
    html! {
        section aria-labelledby="cache-title" {
            h2 #cache-title { "Cache" }
            @if asked(&total) == 0 { p .dim { "No step has asked for a result yet." } }
            @else {
                p {
                    (words::percent(total.hits, asked(&total))) "% of " (words::grouped(asked(&total))) " results were known; "
                    (words::size(total.saved_bytes)) " did not have to be made again."
                }
                (rates::drawn(&rates))
                div .scroll {
                    table {
                        thead { tr { th { "Project" } th { "Step" } th .number { "Hit rate" } th .number { "Hits" } th .number { "Misses" } th .number { "Saved" } } }
                        tbody {
                            @for (step, counts) in steps.iter().take(STEPS) {
                                tr {
                                    td { a .plain href={ "/builds?project=" (encoded(&step.project)) } { (step.project) } }
                                    td { (step.step) }
                                    td .number { (words::percent(counts.hits, asked(counts))) "%" }
                                    td .number { (words::grouped(counts.hits)) }
                                    td .number { (words::grouped(counts.misses)) }
                                    td .number { (words::size(counts.saved_bytes)) }
                                }
                            }
                        }
                    }
                }
                @if steps.len() > STEPS { p .dim { (words::count((steps.len() - STEPS) as u64, "more step", "more steps")) ": " code { "kiln cache stats" } } }
            }
        }
    }
}

/// The cache mounts, the largest first; nothing for whoever may not see them.
async fn mounts(guest: &Guest) -> Markup {
    let Ok(found) = guest.client.cache().mounts(ListMountsRequest::default()).await else { return html! {} };
    let mut mounts = found.into_inner().mounts;
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.size_bytes));
    let all: u64 = mounts.iter().map(|mount| mount.size_bytes).sum();
    html! {
        section #mounts aria-labelledby="mounts-title" {
            h2 #mounts-title { "Cache mounts" }
            @if mounts.is_empty() { p .dim { "No step has left anything in a cache mount." } }
            @else {
                p { (words::count(mounts.len() as u64, "cache mount", "cache mounts")) " with " (words::size(all)) }
                div .scroll {
                    table {
                        thead { tr { th { "Project" } th { "Cache" } th { "Platform" } th .number { "Size" } th { "Last used" } th { "Published" } th { "By worker" } } }
                        tbody { @for mount in mounts.iter().take(MOUNTS) { (self::mount(mount)) } }
                    }
                }
                @if mounts.len() > MOUNTS { p .dim { (words::count((mounts.len() - MOUNTS) as u64, "smaller one", "smaller ones")) ": " code { "kiln cache list --mounts" } } }
            }
        }
    }
}

fn mount(mount: &v1::Mount) -> Markup {
    let name = mount.name.clone().unwrap_or_default();
    let mut of: Vec<String> = Vec::new();
    of.extend((!name.scope.is_empty()).then(|| format!("branch {}", name.scope)));
    of.extend((!name.owner.is_empty()).then(|| format!("owner {}", name.owner)));
    of.extend((!name.worker.is_empty()).then(|| format!("only on {}", name.worker)));
    html! {
        tr {
            td { @if name.project.is_empty() { span .dim { "all" } } @else { (name.project) } }
            td { (name.id) @if !of.is_empty() { div .dim { (of.join(", ")) } } }
            td { (name.platform) }
            td .number { (words::size(mount.size_bytes)) }
            td { @if let Some(at) = &mount.last_use { (words::ago(at)) } }
            td .dim { @if let Some(at) = &mount.published { (words::ago(at)) } }
            td { (mount.writer) }
        }
    }
}
