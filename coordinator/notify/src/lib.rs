//! The end of a build is told to webhooks: those of the coordinator's configuration, and the project's own.
//!
//! Who is told of what is decided when a build ends ([`ending`], [`payload`]); the calls are recorded in the transaction that records the end,
//! and made in the background, again and again until one is accepted or a day is over ([`queue`], [`schedule`], [`send`]).
//!
//! Invariants: a call that was recorded is made at least once, whatever restarts in between, and all its attempts have the same id. What a
//! project asks for reaches public addresses and those that the operator allows, and is signed only by a key that is for its host.

mod config;
mod ending;
mod keys;
mod metrics;
mod payload;
mod queue;
mod schedule;
mod send;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_images::registry::Pattern;
use kiln_plan::{Ending, Notify};
use kiln_proto::v1::notification::State;
use kiln_proto::v1::{Build, ListRequest, Notification, NotificationQueued, Status};
use kiln_proto::{clock, v1};
use kiln_records::Records;
use kiln_state::Current;
use tokio::sync::mpsc;
use url::Url;

pub use config::Config;
pub use config::Error;
use config::Subscription;
pub use metrics::NotifyMetrics;
pub use payload::{MAX_STEPS, Tail};
use queue::{Arriving, Queue};
use send::Sender;

/// Calls of one tenant that wait at most, and how many of these places projects cannot take.
const MAX_QUEUED: u64 = 10_000;
const RESERVED: u64 = 1_000;
/// Builds that are looked at to find the one before on the same branch.
const LOOKED_AT: usize = 50;

/// Options of the calls.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Call webhooks when builds end: a TOML file with a `[hooks.NAME]` table each, and `[keys.NAME]` that sign the calls which projects ask
    /// for with `[notify]`.
    #[arg(id = "notify", long = "notify", env = "KILN_NOTIFY", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Hosts outside the public internet that a project's `[notify]` may call, as `--allow-registry` names them; repeatable. They may be called
    /// over plain HTTP.
    #[arg(
        id = "allow_notify",
        long = "allow-notify",
        env = "KILN_ALLOW_NOTIFY",
        value_delimiter = ',',
        value_name = "PATTERN"
    )]
    pub allowed: Vec<Pattern>,
    /// Nobody is told: whoever waits for the builds runs the coordinator.
    #[arg(skip)]
    pub is_off: bool,
}

/// What the whole coordinator knows of calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Current<Config>,
    sender: Sender,
    metrics: Option<NotifyMetrics>,
    /// Where the farm's pages are.
    pages: Option<Url>,
    is_off: bool,
}

impl Notifier {
    /// Calls what this file names.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn open(
        config: Config,
        options: &Options,
        pages: Option<Url>,
        metrics: Option<NotifyMetrics>,
    ) -> Result<Self, Error> {
        let config = Current::new(config);
        let sender = Sender::new(&options.allowed)?;
        Ok(Self(Arc::new(Shared { config, sender, metrics, pages, is_off: options.is_off })))
    }

    /// Takes over another file: builds that end from now on are told of by it, and calls that wait are made as it says.
    pub fn replace(&self, config: Config) {
        self.0.config.set(config);
    }
}

/// Tells of one tenant's builds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notices {
    notifier: Notifier,
    tenant: String,
    records: Records,
    arriving: mpsc::UnboundedSender<Arriving>,
    queued: Arc<AtomicU64>,
}

impl Notices {
    /// Begins to make the calls that an earlier run left. They are made until the last clone is dropped.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn open(notifier: Notifier, tenant: &str, records: Records) -> Result<Self, kiln_records::Error> {
        let queued = Arc::new(AtomicU64::new(records.queue_length().await?));
        let (arriving, arrived) = mpsc::unbounded_channel();
        let shared = notifier.0.clone();
        if !shared.is_off {
            let queue = Queue { shared, tenant: tenant.to_owned(), records: records.clone(), queued: queued.clone() };
            tokio::spawn(queue.run(arrived));
        }
        Ok(Self { notifier, tenant: tenant.to_owned(), records, arriving, queued })
    }

    /// Whether the coordinator's configuration has hooks for this tenant.
    pub fn has_hooks(&self) -> bool {
        self.notifier.0.config.get().of_tenant(&self.tenant).next().is_some()
    }

    /// Which calls are to tell of the end of a build, whose project may have a webhook of its own. `tails` has the ends of failed steps' output.
    pub async fn of(&self, build: &Build, project: Option<&Notify>, tails: &[Tail]) -> Vec<NotificationQueued> {
        let shared = &self.notifier.0;
        if shared.is_off {
            return Vec::new();
        }
        let config = shared.config.get();
        let mut subscriptions: Vec<Subscription<'_>> = project.map(Subscription::of_project).into_iter().collect();
        subscriptions.extend(config.of_tenant(&self.tenant));
        subscriptions.retain(|one| ending::concerns(one, build));
        if subscriptions.is_empty() {
            return Vec::new();
        }
        let before = Before { clean: self.before(build, false).await, any: self.before(build, true).await };
        let mut calls = Vec::new();
        for one in &subscriptions {
            let before = if one.uncommitted { before.any } else { before.clean };
            let Some(ending) = ending::of(build.status(), before, &one.events) else { continue };
            let most = if one.hook.is_empty() { MAX_QUEUED - RESERVED } else { MAX_QUEUED };
            let room = self.queued.load(Ordering::Relaxed) + (calls.len() as u64) < most;
            calls.push(self.call(build, one, ending, tails, (calls.len(), room)));
        }
        calls
    }

    /// Makes calls that have been recorded.
    pub fn take(&self, calls: &[NotificationQueued]) {
        for (number, call) in calls.iter().enumerate() {
            let is_pending = call.notification.as_ref().is_some_and(|shown| shown.state() == State::Pending);
            if let (true, Some(arriving)) = (is_pending, Arriving::of(Records::queue_key(&call.build, number), call)) {
                self.queued.fetch_add(1, Ordering::Relaxed);
                if let Some(metrics) = &self.notifier.0.metrics {
                    metrics.waiting(1);
                }
                // The queue is there as long as anybody can call this.
                let _ = self.arriving.send(arriving);
            }
        }
    }

    fn call(
        &self,
        build: &Build,
        of: &Subscription<'_>,
        ending: Ending,
        tails: &[Tail],
        (number, room): (usize, bool),
    ) -> NotificationQueued {
        let shared = &self.notifier.0;
        let now = clock::now();
        let mut shown = Notification {
            id: format!("msg_{}_{number}", build.id),
            hook: of.hook.to_owned(),
            to: of.url.as_deref().map(send::shown).unwrap_or_default(),
            event: format!("build.{}", ending.name()),
            ..Notification::default()
        };
        if !room {
            shown.set_state(State::GivenUp);
            shown.reason = "too many calls wait already; the farm keeps so many for a tenant".to_owned();
            let (build, hook) = (&build.id, of.hook);
            tracing::warn!(build, hook, to = shown.to, reason = shown.reason, "nobody is told of the end of a build");
            if let Some(metrics) = &shared.metrics {
                metrics.ended("refused");
            }
        }
        let body = payload::of(build, &shown.event, shared.pages.as_ref(), tails, &now);
        NotificationQueued {
            build: build.id.clone(),
            notification: Some(shown),
            url: if of.hook.is_empty() { of.url.clone().unwrap_or_default() } else { String::new() },
            key: of.key.clone().unwrap_or_default(),
            body,
            since: Some(now),
            due: Some(now),
        }
    }

    /// How the build before this one on the same branch ended, if this is known.
    async fn before(&self, build: &Build, uncommitted: bool) -> Option<Status> {
        let branch = build.source.as_ref().map(|source| source.branch.clone()).filter(|branch| !branch.is_empty())?;
        if build.status() != Status::Succeeded {
            return None;
        }
        let mut request =
            ListRequest { project: build.project.clone(), branch, before: build.id.clone(), ..Default::default() };
        request.statuses = [Status::Succeeded, Status::Failed, Status::FarmFailed].map(i32::from).to_vec();
        let found = self.records.search(&request, LOOKED_AT).await;
        let found = found.inspect_err(|error| tracing::error!(%error, "cannot look for the build before")).ok()?;
        let is_meant = |before: &&v1::Build| uncommitted || !before.source.as_ref().is_some_and(|source| source.dirty);
        found.0.iter().find(is_meant).map(v1::Build::status)
    }
}

/// How the build before ended: among those of committed sources, and among all.
struct Before {
    clean: Option<Status>,
    any: Option<Status>,
}
