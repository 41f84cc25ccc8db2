//! What workers reported about their machines.

use kiln_proto::v1::check::State;
use kiln_proto::v1::{Check, FarmStatus, Worker};

use crate::report::Section;
use crate::{lacks, ok};

/// Why a worker is looked at.
const WHY: &str = "the farm's steps run on its workers";

/// Every worker of a farm, as one finding each.
pub(crate) fn all(status: &FarmStatus) -> Option<Section> {
    let connected = status.workers.iter().filter(|worker| worker.connected);
    let mut checks: Vec<Check> = connected.map(|worker| summary(worker, &status.version)).collect();
    let away = status.workers.iter().filter(|worker| !worker.connected).chain(&status.away);
    checks.extend(away.map(|worker| {
        lacks(
            &worker.worker,
            State::Warning,
            "away: it is expected to return",
            WHY,
            "systemctl status kiln-worker # on its machine",
        )
    }));
    if checks.iter().all(|check| check.found.starts_with("away")) {
        let fix = "kiln-worker --coordinator URL --join-file TOKEN --state-dir DIR";
        checks.push(lacks("workers", State::Missing, "none is connected", WHY, fix));
    }
    Some(Section { about: "the farm's workers".into(), checks })
}

fn summary(worker: &Worker, farm: &str) -> Check {
    let environment = worker.environment.clone().unwrap_or_default();
    let fix = format!("kiln doctor --worker {}", worker.worker);
    let named = |state: State| -> Vec<String> {
        environment.checks.iter().filter(|check| check.state() == state).map(|check| check.name.clone()).collect()
    };
    let (missing, warnings) = (named(State::Missing), named(State::Warning));
    let machine = format!("{} {}", environment.isa, environment.os);
    if !missing.is_empty() {
        return lacks(&worker.worker, State::Missing, format!("{machine}, lacks {}", missing.join(", ")), WHY, fix);
    }
    if worker.version != farm {
        let found = format!("{machine}, version {}, the coordinator has {farm}", worker.version);
        return lacks(&worker.worker, State::Warning, found, WHY, "upgrade the older side");
    }
    if worker.distrusted {
        let found = "distrusted: its results do not count, and it gets no work";
        return lacks(&worker.worker, State::Warning, found, WHY, format!("kiln farm trust {}", worker.worker));
    }
    if worker.draining {
        return lacks(
            &worker.worker,
            State::Warning,
            "draining: it gets no new work",
            WHY,
            format!("kiln farm undrain {}", worker.worker),
        );
    }
    match warnings.is_empty() {
        true => ok(&worker.worker, machine, WHY),
        false => {
            lacks(&worker.worker, State::Warning, format!("{machine}, restricted: {}", warnings.join(", ")), WHY, fix)
        }
    }
}

/// One worker, with everything that it reported.
pub(crate) fn one(name: &str, status: Option<&FarmStatus>) -> Section {
    let about = format!("worker {name}");
    let alone = |found: String, fix: String| Section {
        about: format!("worker {name}"),
        checks: vec![lacks(name, State::Missing, found, WHY, fix)],
    };
    let Some(status) = status else {
        return alone("there is no farm to ask".into(), "kiln doctor --farm URL --worker NAME".into());
    };
    let Some(worker) = status.workers.iter().chain(&status.away).find(|worker| worker.worker == name) else {
        let known: Vec<&str> = status.workers.iter().chain(&status.away).map(|worker| worker.worker.as_str()).collect();
        return alone(format!("the farm has no such worker, only `{}`", known.join("`, `")), "kiln workers".into());
    };
    let environment = worker.environment.clone().unwrap_or_default();
    let mut checks = vec![match worker.connected {
        true => ok("connection", format!("version {}", worker.version), WHY),
        false => lacks("connection", State::Missing, "away", WHY, "systemctl status kiln-worker # on its machine"),
    }];
    if environment.checks.is_empty() {
        let found = "it reports nothing: its version is too old";
        checks.push(lacks(
            "machine",
            State::Warning,
            found,
            "a newer worker says what its machine lacks",
            "upgrade the worker",
        ));
    }
    checks.extend(environment.checks);
    Section { about, checks }
}

#[cfg(test)]
mod tests {
    use kiln_proto::v1::Environment;

    use super::*;

    fn worker(checks: Vec<Check>) -> Worker {
        let environment =
            Environment { isa: "x86-64".into(), os: "debian:12".into(), checks, ..Environment::default() };
        Worker {
            worker: "w".into(),
            version: "1".into(),
            connected: true,
            environment: Some(environment),
            ..Worker::default()
        }
    }

    fn states(status: &FarmStatus) -> Vec<State> {
        all(status).unwrap().checks.iter().map(Check::state).collect()
    }

    #[test]
    fn a_worker_is_as_well_as_its_machine() {
        let with = |checks| FarmStatus { version: "1".into(), workers: vec![worker(checks)], ..FarmStatus::default() };
        let lacking = |state| vec![lacks("step networks", state, "no pasta", "", "")];
        assert_eq!(states(&with(vec![])), [State::Ok]);
        assert_eq!(states(&with(lacking(State::Warning))), [State::Warning]);
        assert_eq!(states(&with(lacking(State::Missing))), [State::Missing]);
        assert_eq!(states(&FarmStatus { version: "2".into(), ..with(vec![]) }), [State::Warning]);
        let away = FarmStatus { away: vec![Worker { connected: false, ..worker(vec![]) }], ..FarmStatus::default() };
        assert_eq!(states(&away), [State::Warning, State::Missing]);
    }

    #[test]
    fn a_worker_that_there_is_not_or_that_says_nothing_is_a_finding() {
        let status = FarmStatus { workers: vec![worker(vec![])], ..FarmStatus::default() };
        let found = |name: &str, status| one(name, status).checks.pop().unwrap().found;
        assert_eq!(found("v", Some(&status)), "the farm has no such worker, only `w`");
        assert!(found("w", Some(&status)).contains("too old"));
        assert!(found("w", None).contains("no farm"));
    }
}
