//! `kiln status`: the farm's activity in ten lines.

use std::time::Duration;

use kiln_proto::v1;
use kiln_proto::v1::step_state::Phase;
use serde_json::json;

use super::{ago, builds};
use crate::farm::Farm;
use crate::{Code, Error, args, local};
use kiln_terminal::{self as terminal, count, size};

/// Maximum number of recent builds searched for running ones.
const LATELY: u32 = 200;
/// Maximum number of running builds listed.
const SHOWN: usize = 5;

pub(super) async fn run(farm: &Farm, args: args::Json) -> Result<Code, Error> {
    let status = farm.status().await?;
    // A user who may only read the cache sees the farm, but no builds.
    let list = farm.builds().list(v1::ListRequest { limit: LATELY, ..v1::ListRequest::default() }).await;
    let all = list.map(|list| list.into_inner().builds).unwrap_or_default();
    let running: Vec<&v1::Build> = all.iter().filter(|build| build.status() == v1::Status::Running).collect();
    if args.json {
        let queued: u64 = status.queues.iter().map(|queue| queue.queued).sum();
        return local::print_json(&json!({
            "farm": farm.url(),
            "version": status.version,
            "workers": status.workers.len(),
            "workers_ready": status.workers.iter().filter(|worker| is_ready(worker)).count(),
            "running": status.workers.iter().map(|worker| worker.running).sum::<u32>(),
            "queued": queued,
            "oldest_queued_ms": status.queues.iter().map(|queue| queue.oldest_ms).max(),
            "store_bytes": status.store_bytes,
            "store_capacity_bytes": status.store_capacity_bytes,
            "builds": running.iter().map(|build| builds::object(build)).collect::<Vec<_>>(),
        }));
    }
    local::print(terminal::harmless(&words(farm.url(), &status, &running, all.first())).as_bytes())
}

fn is_ready(worker: &v1::Worker) -> bool {
    worker.connected && !worker.draining
}

fn words(url: &str, status: &v1::FarmStatus, running: &[&v1::Build], last: Option<&v1::Build>) -> String {
    let mut lines = vec![format!("farm     {url}, version {}", status.version)];
    let ready = status.workers.iter().filter(|worker| is_ready(worker)).count();
    let mut workers = format!("workers  {} ready", count(ready, "worker"));
    for (word, number) in [
        ("draining", status.workers.iter().filter(|worker| worker.connected && worker.draining).count()),
        ("away", status.away.len() + status.workers.iter().filter(|worker| !worker.connected).count()),
    ] {
        if number > 0 {
            workers.push_str(&format!(", {number} {word}"));
        }
    }
    lines.push(workers);
    let connected = || status.workers.iter().filter(|worker| worker.connected);
    let cpus = |of: fn(&v1::Worker) -> Option<v1::Capacity>| -> f64 {
        connected()
            .filter_map(of)
            .map(|capacity| f64::from(capacity.milli_cpus) / 1000.0)
            .fold(0.0, |sum, cpus| sum + cpus)
    };
    let actions: u32 = connected().map(|worker| worker.running).sum();
    let actions = count(actions as usize, "action");
    lines.push(format!(
        "running  {actions} on {} of {} cpus",
        cpus(|worker| worker.used),
        cpus(|worker| worker.capacity)
    ));
    let queued: u64 = status.queues.iter().map(|queue| queue.queued).sum();
    let oldest = status.queues.iter().filter(|queue| queue.queued > 0).map(|queue| queue.oldest_ms).max();
    lines.push(match oldest {
        Some(oldest) => {
            format!(
                "waiting  {}, the oldest for {}",
                count(queued as usize, "action"),
                terminal::duration(Duration::from_millis(oldest))
            )
        }
        None => "waiting  nothing".to_owned(),
    });
    if status.store_capacity_bytes > 0 {
        let (used, all) = (size(status.store_bytes), size(status.store_capacity_bytes));
        lines.push(format!("store    {used} of {all}"));
    }
    match (running, last) {
        ([], Some(last)) => lines.push(format!(
            "builds   none running; the last one, {}, was a {} {}",
            last.project,
            kiln_progress::status_word(last.status()),
            last.finished.map(ago).unwrap_or_default()
        )),
        ([], None) => lines.push("builds   none yet".to_owned()),
        (running, _) => {
            for (index, build) in running.iter().take(SHOWN).enumerate() {
                let head = if index == 0 { "builds   " } else { "         " };
                lines.push(format!("{head}{}", build_words(build)));
            }
            if running.len() > SHOWN {
                let more = running.len() - SHOWN;
                lines.last_mut().into_iter().for_each(|line| line.push_str(&format!(" (and {more} more)")));
            }
        }
    }
    lines.join("\n") + "\n"
}

fn build_words(build: &v1::Build) -> String {
    let id: String = build.id.chars().take(12).collect();
    let started = build.started.map(ago).unwrap_or_default();
    let steps = |phase: Phase| -> Vec<&str> {
        let of_phase = build.steps.iter().filter(move |state| state.phase() == phase);
        of_phase.filter_map(|state| Some(state.step.as_ref()?.step.as_str())).collect()
    };
    let does = match (steps(Phase::Running).as_slice(), steps(Phase::Queued).as_slice()) {
        ([], []) => "plans or delivers".to_owned(),
        ([], [step, ..]) => format!("{step} waits for a worker"),
        ([step], _) => format!("runs {step}"),
        ([step, rest @ ..], _) => format!("runs {step} and {} more", rest.len()),
    };
    format!("{id} {} by {}, started {started}: {does}", build.project, build.user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_and_an_idle_farm_are_told_in_a_few_lines() {
        let capacity = |milli_cpus| Some(v1::Capacity { milli_cpus, memory_bytes: 1 << 30 });
        let worker = |name: &str, connected, running, used| v1::Worker {
            worker: name.into(),
            connected,
            running,
            used: capacity(used),
            capacity: capacity(4000),
            ..Default::default()
        };
        let mut status = v1::FarmStatus {
            version: "0.1.0".into(),
            workers: vec![worker("a", true, 2, 2500), worker("b", true, 0, 0), worker("c", false, 0, 0)],
            queues: vec![v1::Queue { queued: 3, oldest_ms: 61_000, ..Default::default() }],
            store_bytes: 3 << 30,
            store_capacity_bytes: 20 << 30,
            ..Default::default()
        };
        let state = |step: &str, phase: Phase| v1::StepState {
            step: Some(v1::StepRef { step: step.into(), ..Default::default() }),
            phase: phase.into(),
            finished: None,
        };
        let build = v1::Build {
            id: "0190a1b2c3d4e5f6".into(),
            project: "shop".into(),
            user: "ada".into(),
            steps: vec![state("deps", Phase::Done), state("compile", Phase::Running)],
            ..Default::default()
        };
        insta::assert_snapshot!(words("http://farm:8980", &status, &[&build], None), @r"
        farm     http://farm:8980, version 0.1.0
        workers  2 workers ready, 1 away
        running  2 actions on 2.5 of 8 cpus
        waiting  3 actions, the oldest for 1 min 01 s
        store    3.0 GiB of 20.0 GiB
        builds   0190a1b2c3d4 shop by ada, started : runs compile
        ");
        (status.workers, status.queues, status.store_capacity_bytes) = (Vec::new(), Vec::new(), 0);
        insta::assert_snapshot!(words("http://farm:8980", &status, &[], None), @r"
        farm     http://farm:8980, version 0.1.0
        workers  0 workers ready
        running  0 actions on 0 of 0 cpus
        waiting  nothing
        builds   none yet
        ");
        let many: Vec<&v1::Build> = std::iter::repeat_n(&build, 30).collect();
        assert!(words("http://farm:8980", &status, &many, None).lines().count() <= 10);
    }
}
