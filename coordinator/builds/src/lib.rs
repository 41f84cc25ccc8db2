//! Builds: from a source tree in the store to results and artifacts, with a log of events that outlives the process.
//!
//! Invariant: a build knows of actions only what any Remote Execution client would. It is resumed after a restart by running
//! its plan again: finished steps are cache hits, running ones are joined.

pub mod environment;
mod events;
mod failure;
mod images;
mod layer;
mod libraries;
pub mod lower;
mod metrics;
mod named;
mod native;
mod records;
mod remarks;
mod run;
mod secrets;
mod settings;
pub mod source;
mod step_log;
mod steps;
mod waiting;

pub use metrics::BuildMetrics;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_planner::plan::{self, Options, Plan, Platform, Scope};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::{self, Build, Status as BuildStatus, event};
use kiln_proto::{clock, v1::SubmitRequest};
use kiln_telemetry::trace;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Instrument;
use tracing::field::Empty;

pub use events::EventLog;
use kiln_artifacts::{Bases, invalid_base};
use kiln_auth::Identity;
use kiln_execution::ExecutionHandle;
use kiln_layers::Layers;
use kiln_store::Stores;
pub use records::{Error as RecordsError, Records};
use secrets::Secrets;
pub use settings::{Settings, Unfinished};
use source::SourceTree;

/// Builds that are remembered.
const KEPT: usize = 1000;
/// Builds under way at once: each keeps its tree's names and its plan.
const MAX_ACTIVE: usize = 1000;
/// Trees that are read and planned at once.
const MAX_PLANNING: usize = 8;
/// Clients that follow builds at once.
const MAX_WATCHES: usize = 20_000;
/// Events on their way to one client: they are read from the disk, and need no queue.
const WATCHED_AHEAD: usize = 8;
/// Bytes of what is submitted: a project's own facts, for its files are blobs.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Bytes of the id that a client gives its request.
const MAX_REQUEST_ID: usize = 256;

/// All builds of the farm. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Builds {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stores: Stores,
    execution: ExecutionHandle,
    layers: Layers,
    records: Records,
    directory: PathBuf,
    settings: Settings,
    active: Mutex<HashMap<String, Active>>,
    /// One submission at a time looks at request ids.
    submitting: tokio::sync::Mutex<()>,
    planning: Semaphore,
    native: native::Known,
    watches: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
struct Active {
    build: Arc<Mutex<Build>>,
    events: EventLog,
    cancel: CancellationToken,
    secrets: Arc<Secrets>,
}

/// A build on its way: what [`run`] works with.
pub(crate) struct Work {
    pub(crate) stores: Stores,
    pub(crate) execution: ExecutionHandle,
    pub(crate) layers: Layers,
    pub(crate) records: Records,
    pub(crate) build: Arc<Mutex<Build>>,
    pub(crate) events: EventLog,
    pub(crate) cancel: CancellationToken,
    pub(crate) plan: Plan,
    pub(crate) source: Arc<SourceTree>,
    pub(crate) function: DigestFunction,
    pub(crate) bases: Bases,
    /// Without its secrets, which are in memory only.
    pub(crate) request: SubmitRequest,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) resumed: bool,
    pub(crate) allow_emulation: bool,
    pub(crate) metrics: Option<BuildMetrics>,
    /// What the build used and made stays in the store until its end.
    _hold: kiln_store::Hold,
    pub(crate) images: images::Images,
    pub(crate) waits: waiting::Waits,
    /// Whose build it is, as far as that was authenticated.
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
}

/// The span of all that is done for a build. One that is taken up again stays in its trace.
fn span(build: &Build, resumed: bool) -> tracing::Span {
    let (id, project) = (build.id.as_str(), build.project.as_str());
    let span = tracing::info_span!(parent: None, "build", build = id, project, resumed, status = Empty);
    trace::adopt(&span, &build.traceparent);
    span
}

fn variable(wire: &v1::StepVariable) -> plan::Variable {
    plan::Variable {
        step: Some(wire.step.clone()).filter(|step| !step.is_empty()),
        name: wire.name.clone(),
        value: wire.value.clone(),
    }
}

/// The project's directory in its tree.
fn project_directory(text: &str) -> Result<String, String> {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if text.is_empty() || text.split('/').all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("source.project is `{text}`: expected a path below the root of the tree"))
}

/// Somebody of whom only the name is known.
/// What the farm knows of a request by itself.
#[derive(Debug, Default)]
struct Known {
    /// Who asks, where the farm asks them.
    identity: Option<String>,
    /// The farm itself has fetched the sources.
    source_verified: bool,
}

fn named(user: &str) -> Identity {
    Identity { name: user.to_owned(), ..Identity::anonymous() }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

impl Builds {
    /// Opens what an earlier run left under `directory`; `settings` says what becomes of its unfinished builds.
    pub fn open(
        directory: PathBuf,
        stores: Stores,
        execution: ExecutionHandle,
        layers: Layers,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory.join("events"))?;
        let records = Records::open(&directory.join("index.redb"))?;
        let shared = Shared {
            stores,
            execution,
            layers,
            records,
            directory,
            settings,
            active: Mutex::default(),
            submitting: tokio::sync::Mutex::default(),
            planning: Semaphore::new(MAX_PLANNING),
            native: native::Known::default(),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
        };
        let builds = Self { shared: Arc::new(shared) };
        for build in builds.shared.records.builds(KEPT)? {
            if build.status() == BuildStatus::Running {
                // Before anybody can ask for it: whoever does finds it under way.
                let active = builds.activate(build, Secrets::default())?;
                tokio::spawn(builds.clone().resume(active));
            }
        }
        Ok(builds)
    }

    /// The index of builds and artifacts.
    pub fn records(&self) -> &Records {
        &self.shared.records
    }

    fn events_path(&self, id: &str) -> PathBuf {
        self.shared.directory.join("events").join(id)
    }

    /// As [`submit`](Self::submit), for whoever calls: where the farm asks who that is, it is their build whatever the request says.
    pub async fn submit_for(&self, identity: Identity, mut request: SubmitRequest) -> Result<Build, Status> {
        let asked = !identity.is_anonymous();
        if asked {
            request.user.clone_from(&identity.name);
        }
        let known = Known { identity: asked.then(|| identity.name.clone()), source_verified: false };
        self.submit_as(identity, known, request).await
    }

    /// As [`submit`](Self::submit), for a commit that the farm itself has fetched.
    pub async fn submit_verified(&self, request: SubmitRequest) -> Result<Build, Status> {
        let known = Known { identity: None, source_verified: true };
        self.submit_as(named(&request.user), known, request).await
    }

    /// Plans a tree and starts its build. `INVALID_ARGUMENT`: the project is wrong, in words.
    pub async fn submit(&self, request: SubmitRequest) -> Result<Build, Status> {
        self.submit_as(named(&request.user), Known::default(), request).await
    }

    async fn submit_as(&self, identity: Identity, known: Known, mut request: SubmitRequest) -> Result<Build, Status> {
        let bytes = prost::Message::encoded_len(&request);
        if bytes > MAX_REQUEST_BYTES {
            return Err(Status::resource_exhausted(format!(
                "a request of {bytes} bytes to build; expected at most {MAX_REQUEST_BYTES}"
            )));
        }
        if request.request_id.len() > MAX_REQUEST_ID {
            return Err(Status::invalid_argument(format!(
                "a request id of {} bytes; expected at most {MAX_REQUEST_ID}",
                request.request_id.len()
            )));
        }
        // From here on no request holds them: it is written down.
        let secrets = Secrets::new(std::mem::take(&mut request.secrets)).map_err(Status::invalid_argument)?;
        let planned = self.plan(&request).instrument(tracing::info_span!("plan")).await?;
        secrets.fit(&planned.2).map_err(Status::invalid_argument)?;
        // On a task of its own: a caller who goes away must not leave a build that is recorded and never started.
        let builds = self.clone();
        let begun = async move { builds.begin(identity, known, request, secrets, planned).await };
        tokio::spawn(begun.in_current_span()).await.map_err(internal)?
    }

    async fn begin(
        &self,
        identity: Identity,
        known: Known,
        request: SubmitRequest,
        secrets: Secrets,
        (function, source, plan): (DigestFunction, SourceTree, Plan),
    ) -> Result<Build, Status> {
        let _one = self.shared.submitting.lock().await;
        if !request.request_id.is_empty()
            && let Some(id) = self.shared.records.request(&request.request_id).map_err(internal)?
        {
            if let Some(active) = self.shared.active.lock().get(&id) {
                active.secrets.take(secrets);
            }
            return self.get(&id);
        }
        if self.shared.active.lock().len() >= MAX_ACTIVE {
            return Err(Status::resource_exhausted(format!(
                "{MAX_ACTIVE} builds are in progress, the most that the farm allows at once; try again when some have ended"
            )));
        }
        if let Some(usage) = &self.shared.stores.usage {
            usage.settle();
            if let Some(words) = usage.refuses() {
                return Err(Status::resource_exhausted(words));
            }
        }
        let build = Build {
            id: uuid::Uuid::now_v7().simple().to_string(),
            project: plan.name.clone(),
            version: plan.version.clone().unwrap_or_default(),
            source: request.source.clone(),
            status: BuildStatus::Running as i32,
            started: Some(clock::kiln_now()),
            user: request.user.clone(),
            platforms: plan.targets.iter().map(|target| target.platform.to_string()).collect(),
            instance: request.instance.clone(),
            tenant: self.shared.settings.tenant.clone(),
            identity: known.identity.unwrap_or_default(),
            source_verified: known.source_verified,
            traceparent: trace::current(),
            ..Default::default()
        };
        let (records, record, request_id) = (self.shared.records.clone(), build.clone(), request.request_id.clone());
        let request_path = self.events_path(&build.id).with_extension("request");
        let encoded = prost::Message::encode_to_vec(&request);
        tokio::task::spawn_blocking(move || -> Result<(), Status> {
            std::fs::write(request_path, encoded).map_err(internal)?;
            records.put_build(&record, &request_id).map_err(internal)
        })
        .await
        .map_err(internal)??;
        let active = self.activate(build.clone(), secrets).map_err(internal)?;
        self.start(active, request, identity, (function, source, plan), false);
        Ok(build)
    }

    async fn plan(&self, request: &SubmitRequest) -> Result<(DigestFunction, SourceTree, Plan), Status> {
        let _place = self.shared.planning.acquire().await.map_err(internal)?;
        let wrong = |words: String| Status::invalid_argument(words);
        let function = DigestFunction::from_wire(request.digest_function).map_err(|error| wrong(error.to_string()))?;
        let facts = request.source.clone().unwrap_or_default();
        let root =
            Digest::required(function, facts.root.as_ref()).map_err(|error| wrong(format!("source.root: {error}")))?;
        let unreadable = |error: source::Error| match error {
            source::Error::Tree(kiln_store::trees::Error::Store(error)) => error.into(),
            other => wrong(other.to_string()),
        };
        let blobs = &*self.shared.stores.blobs;
        let mut source = SourceTree::read(blobs, root).await.map_err(unreadable)?;
        let platform = |text: &str| text.parse::<Platform>().map_err(|error| wrong(error.to_string()));
        let options = Options {
            platforms: request.platforms.iter().map(|text| platform(text)).collect::<Result<_, _>>()?,
            targets: request.targets.clone(),
            host: if request.host_platform.is_empty() { Platform::Amd64 } else { platform(&request.host_platform)? },
            describe: Some(facts.describe.clone()).filter(|describe| !describe.is_empty()),
            language: match request.language.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|error| wrong(format!("unknown language `{text}`: {error}")))?),
            },
            ignored: facts.ignored.clone(),
            directory: project_directory(&facts.project).map_err(wrong)?,
            directory_name: if facts.directory.is_empty() { "project".to_owned() } else { facts.directory.clone() },
        };
        let scope = if request.test { Scope::Tests } else { Scope::Build };
        let question = |files: &plan::MemorySource| {
            let plan = plan::plan_for(files, &options, scope)?;
            plan::read_unversioned(&plan.steps, files);
            kiln_artifacts::read_locks(files);
            Ok::<Plan, plan::Error>(plan)
        };
        let plan = source.ask(blobs, question).await.map_err(unreadable)?;
        let mut plan = plan.map_err(|error| wrong(error.to_string()))?;
        let variables: Vec<plan::Variable> = request.variables.iter().map(variable).collect();
        plan::set_variables(&mut plan, &variables).map_err(|error| wrong(error.to_string()))?;
        native::mark(&mut plan, &source, &*self.shared.stores.blobs, &self.shared.native).await;
        let (commit, dirty, describe) = (facts.commit.clone(), facts.dirty, facts.describe.clone());
        plan::stamp(&mut plan, &plan::Stamp { commit, dirty, describe });
        if let Some(words) = invalid_base(&plan) {
            return Err(wrong(words));
        }
        Ok((function, source, plan))
    }

    /// From here on the build is under way for whoever asks: it can be watched and cancelled.
    fn activate(&self, build: Build, secrets: Secrets) -> std::io::Result<Active> {
        let id = build.id.clone();
        let active = Active {
            build: Arc::new(Mutex::new(build)),
            events: EventLog::open(&self.events_path(&id))?,
            cancel: CancellationToken::new(),
            secrets: Arc::new(secrets),
        };
        self.shared.active.lock().insert(id, active.clone());
        Ok(active)
    }

    fn start(
        &self,
        active: Active,
        request: SubmitRequest,
        identity: Identity,
        (function, source, plan): (DigestFunction, SourceTree, Plan),
        resumed: bool,
    ) {
        let (id, span) = {
            let build = active.build.lock();
            (build.id.clone(), span(&build, resumed))
        };
        let settings = self.shared.settings.clone();
        let allow_emulation = settings.allow_emulation || request.allow_emulation;
        let work = Work {
            allow_emulation,
            metrics: settings.metrics.clone(),
            _hold: self.shared.stores.in_use.begin(),
            stores: self.shared.stores.clone(),
            execution: self.shared.execution.clone(),
            layers: self.shared.layers.clone(),
            records: self.shared.records.clone(),
            build: active.build,
            events: active.events,
            cancel: active.cancel,
            bases: Bases::new(
                self.shared.stores.clone(),
                &request.instance,
                function,
                (settings.registries.clone(), settings.credentials.clone()),
            ),
            plan,
            source: Arc::new(source),
            function,
            request,
            secrets: active.secrets,
            resumed,
            images: images::Images::default(),
            waits: waiting::Waits::default(),
            identity,
            settings,
        };
        let builds = self.clone();
        let working = async move {
            // Its client looked for them before the restart, which the store may have forgotten.
            if work.resumed
                && let Err(error) = work.source.use_files(&*work.stores.blobs).await
            {
                tracing::warn!(%error, "cannot look for the sources of a build that is being resumed");
            }
            run::run(work).await;
            builds.forget(&id);
        };
        tokio::spawn(working.instrument(span));
    }

    /// What is kept of a build only while it is under way.
    fn forget(&self, id: &str) {
        self.shared.active.lock().remove(id);
        let _ = std::fs::remove_file(self.events_path(id).with_extension("request"));
        self.trim();
    }

    fn trim(&self) {
        for id in self.shared.records.trim_builds(KEPT).unwrap_or_default() {
            let _ = std::fs::remove_file(self.events_path(&id));
        }
    }

    async fn resume(self, active: Active) {
        let build = active.build.lock().clone();
        let request = match self.read_request(&build.id) {
            Ok(request) => request,
            Err(status) => return self.give_up(&active, &status),
        };
        if self.shared.settings.unfinished == Unfinished::Interrupt && !request.detached {
            return self.interrupt(&active);
        }
        tracing::info!(build = build.id, "resuming an unfinished build");
        match self.plan(&request).await {
            Ok(planned) => {
                active.build.lock().steps.clear();
                self.start(active, request, named(&build.user), planned, true);
            }
            Err(status) => self.give_up(&active, &status),
        }
    }

    fn read_request(&self, id: &str) -> Result<SubmitRequest, Status> {
        let path = self.events_path(id).with_extension("request");
        let data = std::fs::read(path).map_err(internal)?;
        prost::Message::decode(data.as_slice()).map_err(internal)
    }

    fn give_up(&self, active: &Active, why: &Status) {
        let why = format!("the coordinator restarted and could not resume the build: {}", why.message());
        self.end(active, BuildStatus::FarmFailed, why);
    }

    /// The client that followed the build ended together with the coordinator: nobody wants it any more.
    fn interrupt(&self, active: &Active) {
        let why = "interrupted: the `kiln` that ran the farm ended before the build did; build again to continue";
        self.end(active, BuildStatus::Cancelled, why.to_owned());
    }

    /// Ends a build that an earlier run of the coordinator began and that does not run again.
    fn end(&self, active: &Active, status: BuildStatus, message: String) {
        let build = {
            let mut build = active.build.lock();
            build.set_status(status);
            build.message = message;
            build.finished = Some(clock::kiln_now());
            build.clone()
        };
        tracing::info!(build = build.id, why = build.message, "an unfinished build ends");
        if let Err(error) = self.shared.records.put_build(&build, "") {
            tracing::error!(%error, build = build.id, "cannot record that a build ended");
        }
        active.events.append(event::Event::BuildFinished(run::finished(&build)));
        self.forget(&build.id);
    }

    /// A build by its id, the unique beginning of one, or `latest`.
    pub fn get(&self, id: &str) -> Result<Build, Status> {
        self.get_for(id, "")
    }

    /// As [`get`](Self::get); `latest` is the latest of this user, where they have any.
    pub fn get_for(&self, id: &str, user: &str) -> Result<Build, Status> {
        let now = |id: &str| self.shared.active.lock().get(id).map(|active| active.build.lock().clone());
        if let Some(build) = now(id) {
            return Ok(build);
        }
        let found = named::build(&self.shared.records, id, user)?;
        Ok(now(&found.id).unwrap_or(found))
    }

    /// The id of the build that was submitted with a request id. `NOT_FOUND`: there is none.
    pub fn of_request(&self, request_id: &str) -> Result<String, Status> {
        let found = self.shared.records.request(request_id).map_err(internal)?;
        found.ok_or_else(|| Status::not_found(format!("no build was submitted with the request id `{request_id}`")))
    }

    /// The artifact that is meant by an id, a part of one, a name or `latest`.
    pub fn artifact(&self, named: &str, platform: &str) -> Result<v1::Artifact, Status> {
        named::artifact(&self.shared.records, named, platform)
    }

    /// The latest builds, newest first; 100 where `limit` is 0.
    pub fn list(&self, limit: u32) -> Result<Vec<Build>, Status> {
        let limit = if limit == 0 { 100 } else { (limit as usize).min(KEPT) };
        let builds = self.shared.records.builds(limit).map_err(internal)?;
        let active = self.shared.active.lock();
        Ok(builds
            .into_iter()
            .map(|build| active.get(&build.id).map_or(build, |active| active.build.lock().clone()))
            .collect())
    }

    /// Asks a build to end; a finished one stays as it is.
    pub fn cancel(&self, id: &str) -> Result<Build, Status> {
        let build = self.get(id)?;
        if let Some(active) = self.shared.active.lock().get(&build.id) {
            active.cancel.cancel();
        }
        Ok(build)
    }

    /// Asks all running builds of a person to end; those are returned as they were.
    pub fn cancel_all(&self, user: &str) -> Vec<Build> {
        let active = self.shared.active.lock();
        let of_user = active.values().filter(|active| active.build.lock().user == user);
        of_user
            .map(|active| {
                active.cancel.cancel();
                active.build.lock().clone()
            })
            .collect()
    }

    /// The events of a build from an offset on, ending after `BuildFinished`.
    pub fn watch(
        &self,
        id: &str,
        offset: u64,
    ) -> Result<tokio::sync::mpsc::Receiver<Result<v1::Event, Status>>, Status> {
        let place = self.shared.watches.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{MAX_WATCHES} clients follow builds, the most that the farm serves"))
        })?;
        let build = self.get(id)?;
        let id = build.id.as_str();
        let active = self.shared.active.lock().get(id).map(|active| active.events.clone());
        let events = match active {
            Some(events) => events,
            None => EventLog::open(&self.events_path(&build.id)).map_err(internal)?,
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(WATCHED_AHEAD);
        let builds = self.clone();
        let id = id.to_owned();
        tokio::spawn(async move {
            let _place = place;
            let mut count = events.count();
            let mut offset = offset;
            loop {
                count.mark_unchanged();
                let running = builds.shared.active.lock().contains_key(&id);
                match events.read(offset) {
                    Ok(Some(event)) => {
                        let last = matches!(event.event, Some(event::Event::BuildFinished(_)));
                        if sender.send(Ok(event)).await.is_err() || last {
                            return;
                        }
                        offset += 1;
                    }
                    Ok(None) if !running => return,
                    Ok(None) => tokio::select! {
                        changed = count.changed() => if changed.is_err() { return },
                        () = sender.closed() => return,
                    },
                    Err(error) => {
                        let _ = sender.send(Err(internal(error))).await;
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests;
