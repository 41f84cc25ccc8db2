//! Shells in the places of steps: finds the step's action, runs the shell in its place, and records that it was opened.
//!
//! Invariant: a shell is given what its step was given, but secrets and SSH agents of whoever opens it, never those of the build.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use kiln_auth::Identity;
use kiln_execution::shells::{self, Notice, Wanted};
use kiln_execution::{Known, Request};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{Build, OpenShell, ShellInput, ShellOpened, ShellOutput, StepState, event};
use kiln_proto::{agent, clock, precondition, property, reapi, root};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::{Builds, agents, internal, unread};
use kiln_build_secrets::{Inexact, Secrets};

/// Messages to a user that wait to be sent. Each has at most 32 KiB of data.
const QUEUE: usize = 8;
/// Maximum bytes of a command and of the value of TERM.
const MAX_COMMAND: usize = 128 << 10;
const MAX_TERM: usize = 64;
/// Maximum rows or columns of a window.
const MAX_SIDE: u32 = 10_000;

/// The functions that a build's digests may have. They are not recorded, and their digests look alike.
const FUNCTIONS: [DigestFunction; 2] = [DigestFunction::Sha256, DigestFunction::Blake3];

/// Agents that refuse everything: those of the build were its client's, and whoever opens the shell offers none.
#[derive(Debug)]
struct NoAgents;

#[async_trait]
impl kiln_execution::Agents for NoAgents {
    async fn ask(&self, _: &str, _: Bytes) -> Bytes {
        Bytes::from_static(agent::FAILURE)
    }
}

impl Builds {
    /// Opens a shell in the place of a step, for whoever `identity` is; `typed` is what this user types. Returns what the user is told, which ends
    /// with the shell; dropping it ends the shell. `named` is told what it is, for the audit log.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such build or step, `FAILED_PRECONDITION` if the step has not run or its inputs are gone.
    pub async fn open_shell(
        &self,
        identity: Identity,
        mut open: OpenShell,
        named: impl FnOnce(String),
        typed: impl Stream<Item = Result<ShellInput, Status>> + Send + Unpin + 'static,
    ) -> Result<mpsc::Receiver<Result<ShellOutput, Status>>, Status> {
        let owner = if identity.is_anonymous() { String::new() } else { identity.name };
        let user = if owner.is_empty() { open.user.clone() } else { owner.clone() };
        let given = Secrets::new(std::mem::take(&mut open.secrets)).map_err(Status::invalid_argument)?;
        let build = self.get_for(&open.build, &user).await?;
        named(format!("shell in step {} of build {}", open.step, build.id));
        let shell = open.shell.clone().unwrap_or_default();
        check(&shell)?;
        let state = match step(&build, &open) {
            Err(Absent::Step) => return Err(self.absent(&build, &open.step).await?),
            Err(Absent::Place(status)) => return Err(status),
            Ok(state) => state,
        };
        let request = self.request(&build, &open.step, state, given, &user).await?;
        let (agents, found) = self.agents(&open.id, &owner)?;
        let (wanted, input, output) = Wanted::new(shell.clone());
        let request = Request { shell: Some(wanted), agents: Some(agents), ..request };
        let attached = self.shared.execution.execute(request).await.map_err(|status| gone(status, &open.step))?;
        let (client, told) = mpsc::channel(QUEUE);
        let opened = ShellOpened { step: state.step.clone(), user, command: shell.command, ..ShellOpened::default() };
        let record = Record { builds: self.clone(), build: build.id, opened };
        let idle = self.shared.settings.shell_idle;
        tokio::spawn(async move {
            let _agents = found;
            shells::relay(attached, (input, output), typed, client, idle, record).await;
        });
        Ok(told)
    }

    /// The agents of whoever opens a shell under this id, and what keeps them there.
    fn agents(
        &self,
        id: &str,
        owner: &str,
    ) -> Result<(Arc<dyn kiln_execution::Agents>, Option<agents::Found>), Status> {
        if id.is_empty() {
            return Ok((Arc::new(NoAgents), None));
        }
        let (agents, found) = self.agents_of_shell(id, owner)?;
        Ok((agents, Some(found)))
    }

    /// Why a build has no such step among those that it has begun.
    async fn absent(&self, build: &Build, name: &str) -> Result<Status, Status> {
        let events = self.shared.records.events(&build.id, 0).await.map_err(unread)?;
        let mut names: Vec<String> = Vec::new();
        for event in events {
            if let Some(event::Event::BuildStarted(started)) = event.event {
                names.extend(started.steps.into_iter().filter_map(|planned| Some(planned.step?.step)));
            }
        }
        names.extend(build.steps.iter().filter_map(|state| Some(state.step.as_ref()?.step.clone())));
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        if names.iter().any(|planned| planned == name) {
            return Ok(not_run(build, name));
        }
        let names = names.join(", ");
        Ok(Status::not_found(format!("build `{}` has no step `{name}`; expected one of: {names}", build.id)))
    }

    /// The request for the action of a step that has run, without the shell.
    async fn request(
        &self,
        build: &Build,
        name: &str,
        state: &StepState,
        given: Secrets,
        user: &str,
    ) -> Result<Request, Status> {
        let finished = state.finished.as_ref().filter(|finished| finished.action_digest.is_some());
        let finished = finished.ok_or_else(|| match state.phase() {
            Phase::Queued | Phase::Running => {
                Status::failed_precondition(format!("step `{name}` has not ended; a shell can be opened when it has"))
            }
            _ => not_run(build, name),
        })?;
        let mut found = Err(Status::internal("no digest function"));
        for function in FUNCTIONS {
            let digest = Digest::required(function, finished.action_digest.as_ref()).map_err(internal)?;
            found = self.shared.execution.load(&digest).await.map(|loaded| (digest, loaded));
            if found.is_ok() {
                break;
            }
        }
        let (action_digest, (action, command)) = found.map_err(|status| gone(status, name))?;
        let times = finished.times.as_ref().map(|times| Digest::from_wire(action_digest.function, times));
        let times = times.transpose().map_err(internal)?;
        let names = secrets_of(&action);
        let secrets = given.exactly(names.iter().map(String::as_str)).map_err(|inexact| {
            Status::failed_precondition(match inexact {
                Inexact::Missing(secret) => format!(
                    "step `{name}` asks for the secret `{secret}`, and the build's value is not kept: pass `--secret {secret}`"
                ),
                Inexact::Unknown(secret) => format!("step `{name}` asks for no secret `{secret}`; leave it out"),
            })
        })?;
        Ok(Request {
            instance: build.instance.trim_matches('/').to_owned(),
            action_digest,
            skip_cache_lookup: true,
            priority: 0,
            share: user.to_owned(),
            build: build.id.clone(),
            path_weight: 0,
            secrets,
            agents: None,
            queue_timeout: None,
            shell: None,
            known: Some(Arc::new(Known {
                variables: variables(&action)?,
                action,
                command,
                times,
                caches: finished.caches.clone(),
                hosts: finished.hosts.clone(),
                ..Known::default()
            })),
        })
    }
}

/// The names of the secrets of an action.
fn secrets_of(action: &reapi::Action) -> Vec<String> {
    let properties = action.platform.iter().flat_map(|platform| &platform.properties);
    properties.filter_map(|one| one.name.strip_prefix(property::SECRET_PREFIX).map(str::to_owned)).collect()
}

/// The variables of an action beside those of its command.
fn variables(action: &reapi::Action) -> Result<BTreeMap<String, String>, Status> {
    let mut properties = action.platform.iter().flat_map(|platform| &platform.properties);
    let Some(mounts) = properties.find(|one| one.name == root::MOUNTS) else { return Ok(BTreeMap::new()) };
    Ok(agents::variable(&root::decode(&mounts.value).map_err(internal)?))
}

fn not_run(build: &Build, name: &str) -> Status {
    Status::failed_precondition(format!(
        "step `{name}` of build `{}` has not run, so there is nothing to open a shell in",
        build.id
    ))
}

/// What a build does not have.
enum Absent {
    Step,
    Place(Status),
}

/// The action that is meant.
fn step<'a>(build: &'a Build, open: &OpenShell) -> Result<&'a StepState, Absent> {
    let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    let named: Vec<&StepState> =
        build.steps.iter().filter(|state| state.step.as_ref().is_some_and(|step| step.step == open.step)).collect();
    if named.is_empty() {
        return Err(Absent::Step);
    }
    let shard = open.shard.saturating_sub(1);
    let fits: Vec<&StepState> = named
        .into_iter()
        .filter(|state| {
            let step = state.step.clone().unwrap_or_default();
            is(&open.platform, &step.platform) && is(&open.target, &step.target) && step.shard == shard
        })
        .collect();
    // Of several targets, the one where it failed is meant.
    let failed = fits.iter().find(|state| state.phase() == Phase::Failed);
    failed.or(fits.first()).copied().ok_or_else(|| {
        Absent::Place(Status::not_found(format!(
            "step `{}` of build `{}` has no such platform, target or shard; `kiln builds --json` lists what it ran for",
            open.step, build.id
        )))
    })
}

fn check(shell: &kiln_proto::v1::Shell) -> Result<(), Status> {
    let bytes: usize = shell.command.iter().map(|argument| argument.len() + 1).sum();
    if bytes > MAX_COMMAND {
        return Err(Status::invalid_argument(format!("a command of {bytes} bytes; expected at most {MAX_COMMAND}")));
    }
    if shell.command.iter().any(|argument| argument.contains('\0'))
        || shell.command.first().is_some_and(String::is_empty)
    {
        return Err(Status::invalid_argument("the command is empty, or contains a NUL"));
    }
    let Some(terminal) = &shell.terminal else {
        return match shell.command.is_empty() {
            true => Err(Status::invalid_argument("a shell needs a terminal; `kiln run` runs a command without one")),
            false => Ok(()),
        };
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if terminal.term.len() > MAX_TERM || !terminal.term.chars().all(is_plain) {
        return Err(Status::invalid_argument(
            "invalid value of TERM; expected the name of a terminal, such as `xterm`",
        ));
    }
    let size = terminal.size.unwrap_or_default();
    if size.rows.max(size.columns) > MAX_SIDE {
        return Err(Status::invalid_argument(format!("a window of more than {MAX_SIDE} rows or columns")));
    }
    Ok(())
}

/// A refusal, which says what to do if the action's blobs have been evicted.
fn gone(status: Status, step: &str) -> Status {
    if precondition::subjects(&precondition::from_tonic(&status)).is_empty() {
        return status;
    }
    Status::new(
        Code::FailedPrecondition,
        format!(
            "the inputs of step `{step}` are not in the store any more; build again, then open the shell in that build"
        ),
    )
}

/// Records a shell when it begins.
struct Record {
    builds: Builds,
    build: String,
    opened: ShellOpened,
}

impl Notice for Record {
    async fn begins(&mut self, worker: &str) {
        (self.opened.worker, self.opened.at) = (worker.to_owned(), Some(clock::now()));
        let step = self.opened.step.as_ref().map_or("", |step| step.step.as_str());
        tracing::info!(build = self.build, step, user = self.opened.user, worker, "a shell is opened");
        if let Some(active) = self.builds.shared.active.lock().get(&self.build) {
            active.events.append(event::Event::ShellOpened(self.opened.clone()));
        }
        if let Err(error) = self.builds.shared.records.add_shell(&self.build, self.opened.clone()).await {
            tracing::error!(%error, build = self.build, "cannot record a shell");
        }
    }
}
