//! `kiln builds` and `kiln cancel`.

use std::time::Duration;

use kiln_proto::v1;
use kiln_proto::v1::step_state::Phase;
use serde_json::{Value, json};

use super::{ago, time};
use crate::farm::Farm;
use crate::{Code, Error, args, local};
use kiln_progress::{cache_word, status_word};
use kiln_terminal::{self as terminal, Table, fixed, flexible};

pub(super) async fn list(farm: &Farm, args: args::List) -> Result<Code, Error> {
    let request = v1::ListRequest { limit: args.limit, ..v1::ListRequest::default() };
    let builds = farm.call(farm.builds().list(request)).await?.into_inner().builds;
    if args.json {
        return local::print_json(&builds.iter().map(object).collect());
    }
    if builds.is_empty() {
        terminal::say("no builds yet; `kiln build` starts one");
        return Ok(Code::Success);
    }
    let ids = short_ids(&builds);
    let columns = [
        fixed("build"),
        flexible("project"),
        flexible("version").optional(2),
        fixed("status"),
        fixed("started").optional(1),
        fixed("took").optional(3),
        flexible("by").optional(4),
    ];
    let rows = builds.iter().zip(ids).map(|(build, id)| {
        vec![
            id,
            build.project.clone(),
            build.version.clone(),
            status_word(build.status()).to_owned(),
            build.started.map(ago).unwrap_or_default(),
            took(build).map(terminal::duration).unwrap_or_default(),
            build.user.clone(),
        ]
    });
    local::print(Table::new(&columns).with(rows).for_stdout().as_bytes())
}

/// The ids, shortened to a prefix that distinguishes these builds and that every command accepts.
fn short_ids(builds: &[v1::Build]) -> Vec<String> {
    // The first twelve characters contain the time in milliseconds.
    const FEWEST: usize = 12;
    let longest = builds.iter().map(|build| build.id.len()).max().unwrap_or(FEWEST);
    let short = |build: &v1::Build, length: usize| build.id.get(..length).unwrap_or(&build.id).to_owned();
    let is_unique = |length: &usize| {
        let ids: std::collections::BTreeSet<String> = builds.iter().map(|build| short(build, *length)).collect();
        ids.len() == builds.len()
    };
    let length = (FEWEST..longest).find(is_unique).unwrap_or(longest);
    builds.iter().map(|build| short(build, length)).collect()
}

pub(super) async fn cancel(farm: &Farm, id: &str) -> Result<Code, Error> {
    Ok(cancelled(&farm.cancel(id).await?))
}

pub(super) async fn cancel_request(farm: &Farm, request_id: &str) -> Result<Code, Error> {
    Ok(cancelled(&farm.cancel_request(request_id).await?))
}

fn cancelled(build: &v1::Build) -> Code {
    terminal::say(&format!("build {}: {}", build.id, status_word(build.status())));
    Code::Success
}

fn took(build: &v1::Build) -> Option<Duration> {
    let (from, to) = (build.started?, build.finished?);
    let nanos = i128::from(to.seconds - from.seconds) * 1_000_000_000 + i128::from(to.nanos - from.nanos);
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

pub(super) fn object(build: &v1::Build) -> Value {
    let source = build.source.clone().unwrap_or_default();
    json!({
        "build": build.id,
        "project": build.project,
        "version": build.version,
        "status": status_word(build.status()),
        "message": build.message,
        "platforms": build.platforms,
        "user": build.user,
        "identity": build.identity,
        "tenant": build.tenant,
        "started": time(build.started),
        "finished": time(build.finished),
        "duration_ms": took(build).map(|took| took.as_millis() as u64),
        "commit": source.commit,
        "dirty": source.dirty,
        "repository": source.repository,
        "steps": build.steps.iter().map(step).collect::<Vec<_>>(),
        "shells": build.shells.iter().map(shell).collect::<Vec<_>>(),
        "notifications": build.notifications.iter().map(notification).collect::<Vec<_>>(),
        "artifacts": build.artifacts.iter().map(|artifact| &artifact.id).collect::<Vec<_>>(),
    })
}

fn notification(call: &v1::Notification) -> Value {
    use v1::notification::State;
    json!({
        "id": call.id,
        "hook": call.hook,
        "to": call.to,
        "event": call.event,
        "state": match call.state() {
            State::Pending => "pending",
            State::Delivered => "delivered",
            State::GivenUp => "given_up",
        },
        "attempts": call.attempts,
        "reason": call.reason,
        "tried": time(call.tried),
    })
}

fn shell(shell: &v1::ShellOpened) -> Value {
    let of = shell.step.clone().unwrap_or_default();
    json!({
        "step": of.step,
        "platform": of.platform,
        "target": of.target,
        "shard": of.shard + 1,
        "at": time(shell.at),
        "user": shell.user,
        "worker": shell.worker,
        "command": shell.command,
    })
}

fn step(state: &v1::StepState) -> Value {
    let of = state.step.clone().unwrap_or_default();
    let phase = match state.phase() {
        Phase::Waiting => "waiting",
        Phase::Queued => "queued",
        Phase::Running => "running",
        Phase::Done => "done",
        Phase::Failed => "failed",
        Phase::Skipped => "skipped",
    };
    let finished = state.finished.as_ref();
    json!({
        "step": of.step,
        "platform": of.platform,
        "target": of.target,
        "shard": of.shard + 1,
        "shards": of.shards,
        "phase": phase,
        "cache": finished.map(|finished| cache_word(finished.cache())),
        "exit_code": finished.filter(|finished| !finished.no_exit_code).map(|finished| finished.exit_code),
        "duration_ms": finished.map(|finished| finished.duration_ms),
        "worker": finished.map(|finished| &finished.worker),
        "message": finished.map(|finished| &finished.message),
    })
}
