//! Builds that pages show: read once, however many pages show them, and while they run followed by one reader each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hashlink::LruCache;
use kiln_proto::v1::{self, Event, Status, WatchRequest, event};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior};

use super::patch::{Patch, Written};
use crate::answer::Failure;
use crate::calls::Client;
use crate::log::{Line, Splitter};
use kiln_web_model::Progress;

/// How often pages are told what has changed.
const EVERY: Duration = Duration::from_millis(300);
/// How long a build is followed that no page shows.
const UNSEEN: Duration = Duration::from_secs(30);
/// Builds that have ended whose progress is kept.
const KEPT: usize = 64;
/// Messages that a slow page may be behind; it reads everything again then.
const BEHIND: usize = 64;

/// Tenant and build.
type Key = (String, String);

/// What has changed since pages were last told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Places of steps.
    pub(crate) steps: BTreeSet<usize>,
    /// Those from this place on are new.
    pub(crate) new_from: usize,
    /// Something of the build as a whole.
    pub(crate) all: bool,
}

/// Turns changes into patches.
pub(crate) type Render = Arc<dyn Fn(&v1::Build, &Progress, &Changes) -> Vec<Patch> + Send + Sync>;

/// What pages are told at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct News {
    pub(crate) patches: Written,
    /// Lines of output, by the places of their steps.
    pub(crate) lines: BTreeMap<usize, Lines>,
}

/// Lines of a step's output.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    /// The number of the first.
    pub(crate) from: u64,
    pub(crate) rows: Arc<[String]>,
    /// All of them, for pages that have none.
    pub(crate) written: Written,
}

impl Lines {
    fn of(place: usize, from: u64, rows: Arc<[String]>) -> Self {
        let written = Written::of(&[Patch::lines(place, from, rows.clone())]);
        Self { from, rows, written }
    }
}

/// A build as pages show it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) build: v1::Build,
    pub(crate) progress: Mutex<Progress>,
    news: broadcast::Sender<Arc<News>>,
}

impl Shown {
    /// What pages will be told from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<News>> {
        self.news.subscribe()
    }
}

/// All builds that pages show. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Builds(Arc<Inner>);

struct Inner {
    render: Render,
    ended: Mutex<LruCache<Key, Arc<Shown>>>,
    running: Mutex<HashMap<Key, Arc<tokio::sync::OnceCell<Arc<Shown>>>>>,
}

impl std::fmt::Debug for Builds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Builds")
    }
}

impl Builds {
    pub(crate) fn new(render: Render) -> Self {
        let (ended, running) = (Mutex::new(LruCache::new(KEPT)), Mutex::default());
        Self(Arc::new(Inner { render, ended, running }))
    }

    /// A build that this visitor has just got: that they may see it was checked then.
    pub(crate) async fn show(&self, client: &Client, tenant: &str, build: v1::Build) -> Result<Arc<Shown>, Failure> {
        let key = (tenant.to_owned(), build.id.clone());
        if build.status() != Status::Running {
            let known = self.0.ended.lock().get(&key).cloned();
            if let Some(shown) = known {
                return Ok(shown);
            }
            let mut progress = Progress::default();
            read(client, &build, true, |event| _ = progress.apply(event)).await?;
            let shown = shown(build, progress);
            self.0.ended.lock().insert(key, shown.clone());
            return Ok(shown);
        }
        let cell = self.0.running.lock().entry(key.clone()).or_default().clone();
        let followed = cell.get_or_try_init(|| self.follow(client.clone(), key.clone(), build)).await;
        if followed.is_err() {
            self.0.running.lock().remove(&key);
        }
        followed.cloned()
    }

    /// Reads what there is, and then goes on reading.
    async fn follow(&self, client: Client, key: Key, build: v1::Build) -> Result<Arc<Shown>, Failure> {
        let mut follower = Follower::default();
        let mut progress = Progress::default();
        read(&client, &build, false, |event| follower.take(&mut progress, event)).await?;
        follower.changes = Changes { new_from: progress.steps.len(), ..Changes::default() };
        follower.lines.clear();
        let shown = shown(build, progress);
        let (builds, following) = (self.clone(), shown.clone());
        tokio::spawn(async move {
            follower.run(&client, &following, &builds.0.render).await;
            builds.0.running.lock().remove(&key);
        });
        Ok(shown)
    }
}

fn shown(build: v1::Build, progress: Progress) -> Arc<Shown> {
    Arc::new(Shown { build, progress: Mutex::new(progress), news: broadcast::Sender::new(BEHIND) })
}

/// Reads the events that there are.
async fn read(
    client: &Client,
    build: &v1::Build,
    without_logs: bool,
    mut take: impl FnMut(&Event),
) -> Result<(), Failure> {
    let request = WatchRequest { build: build.id.clone(), without_logs, until_now: true, ..WatchRequest::default() };
    let mut events = client.builds().watch(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        take(&event);
    }
    Ok(())
}

/// Follows a running build.
#[derive(Debug, Default)]
struct Follower {
    changes: Changes,
    /// The output of steps: what has no end yet, and how many lines there were.
    logs: HashMap<usize, (Splitter, u64)>,
    /// Lines that pages were not told of, by step.
    lines: BTreeMap<usize, (u64, Vec<Line>)>,
}

impl Follower {
    fn take(&mut self, progress: &mut Progress, event: &Event) {
        if let Some(place) = progress.apply(event) {
            self.changes.steps.insert(place);
        }
        match &event.event {
            Some(event::Event::Log(log)) => {
                let Some(place) = log.step.as_ref().and_then(|step| progress.find(step)) else { return };
                self.push(place, |splitter, out| {
                    splitter.push(log.stream == "stderr", &log.data, log.skipped_bytes, out);
                });
            }
            Some(event::Event::StepFinished(done)) => {
                self.changes.all = true;
                let Some(place) = done.step.as_ref().and_then(|step| progress.find(step)) else { return };
                self.push(place, Splitter::end);
            }
            Some(event) => self.changes.all |= Progress::is_about_all(event),
            None => {}
        }
    }

    fn push(&mut self, place: usize, push: impl FnOnce(&mut Splitter, &mut Vec<Line>)) {
        let (splitter, before) = self.logs.entry(place).or_default();
        let mut out = Vec::new();
        push(splitter, &mut out);
        if !out.is_empty() {
            let first = *before + 1;
            *before += out.len() as u64;
            self.lines.entry(place).or_insert_with(|| (first, Vec::new())).1.extend(out);
        }
    }

    /// Until the build ends, nobody has shown it for a while, or whoever looked first may not any more: pages that still show it connect again.
    async fn run(mut self, client: &Client, shown: &Shown, render: &Render) {
        let offset = shown.progress.lock().next;
        let request = WatchRequest { build: shown.build.id.clone(), offset, ..WatchRequest::default() };
        let Ok(events) = client.builds().watch(request).await else { return };
        let mut events = events.into_inner();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Instant::now();
        loop {
            tokio::select! {
                event = events.message() => match event {
                    Ok(Some(event)) => self.take(&mut shown.progress.lock(), &event),
                    _ => break,
                },
                _ = ticks.tick() => {
                    if shown.news.receiver_count() > 0 {
                        seen = Instant::now();
                    } else if seen.elapsed() > UNSEEN {
                        return;
                    }
                    self.tell(shown, render);
                }
            }
        }
        self.tell(shown, render);
    }

    fn tell(&mut self, shown: &Shown, render: &Render) {
        let changes = std::mem::take(&mut self.changes);
        let lines = std::mem::take(&mut self.lines);
        let progress = shown.progress.lock();
        self.changes.new_from = progress.steps.len();
        if shown.news.receiver_count() == 0 || (changes.steps.is_empty() && !changes.all && lines.is_empty()) {
            return;
        }
        // Where only lines were printed, nothing else is looked at.
        let has_changed = changes.all || !changes.steps.is_empty();
        let mut patches = if has_changed { render(&shown.build, &progress, &changes) } else { Vec::new() };
        if progress.status.is_some() {
            patches.push(Patch::End);
        }
        drop(progress);
        let rows = |place: usize, from: u64, lines: &[Line]| -> Lines {
            let address = format!("/builds/{}/steps/{}/log", shown.build.id, place + 1);
            let row = |(number, line): (u64, &Line)| line.row(number, &address).into_string();
            Lines::of(place, from, (from..).zip(lines).map(row).collect())
        };
        let lines = lines.iter().map(|(place, (from, lines))| (*place, rows(*place, *from, lines))).collect();
        // Nobody may be listening any more.
        let _ = shown.news.send(Arc::new(News { patches: Written::of(&patches), lines }));
    }
}
