//! Conversions between wire messages and the scheduler's types.

use std::collections::BTreeSet;

use kiln_proto::{property, reapi, root, v1};
use kiln_scheduler::{Capacity, Failure};
use tonic::Code;

use super::super::failed;

/// A capacity in the scheduler's units.
pub(super) fn capacity(wire: Option<&v1::Capacity>) -> Capacity {
    wire.map(|wire| Capacity { milli_cpus: wire.milli_cpus, memory_bytes: wire.memory_bytes }).unwrap_or_default()
}

/// The platform pairs that a worker offers.
pub(super) fn offered(environment: &v1::Environment) -> BTreeSet<(String, String)> {
    let mut pairs = BTreeSet::new();
    let mut offer = |name: &str, value: &str| {
        if !value.is_empty() {
            pairs.insert((name.to_owned(), value.to_owned()));
        }
    };
    offer(property::OS_FAMILY, "linux");
    offer(property::ISA, &environment.isa);
    offer(property::OS, &environment.os);
    offer(property::LIBC, &environment.libc);
    offer(property::ENVIRONMENT, &environment.fingerprint);
    offer(property::CPU, &environment.cpu);
    if environment.emulated {
        offer(property::EMULATED, "on");
    }
    for executor in &environment.executors {
        offer(property::EXECUTOR, executor);
    }
    if environment.executors.is_empty() {
        offer(property::EXECUTOR, property::SANDBOX);
    }
    if environment.calls > 0 {
        offer(property::CALLS, &environment.calls.to_string());
    }
    if environment.host_network {
        offer(property::NETWORK, root::NETWORK_HOST);
    }
    for level in property::cpu_levels(&environment.cpu_level) {
        offer(property::CPU_LEVEL, &level);
    }
    for (name, value) in &environment.labels {
        offer(&format!("{}{name}", property::LABEL_PREFIX), value);
    }
    pairs
}

/// The offered pairs that an action must ask for explicitly: nothing runs emulated unless it allows that.
pub(super) fn demanded(environment: &v1::Environment) -> BTreeSet<(String, String)> {
    environment.emulated.then(|| (property::EMULATED.to_owned(), "on".to_owned())).into_iter().collect()
}

pub(super) fn failure_response(failure: &Failure) -> reapi::ExecuteResponse {
    match failure {
        Failure::NoWorkerMatches { reasons } => {
            let mut text = format!("no worker of the farm can run this action: {}", reasons.join("; "));
            let wants = |executor: &str| {
                let pair = format!("{}={executor}", property::EXECUTOR);
                let (other, none) = (format!("{pair} is required"), format!("required {pair}"));
                reasons.iter().any(|reason| reason.contains(&other) || reason.ends_with(&none))
            };
            if wants(property::IN_ROOT) {
                text.push_str(
                    "; steps in image roots need a worker with ids for them (`kiln workers` shows what each lacks)",
                );
            } else if reasons.iter().any(|reason| reason.contains(property::EXECUTOR)) {
                text.push_str("; actions with an image need a worker with a Docker Engine (`kiln-worker --docker required` reports what it lacks)");
            }
            failed(Code::FailedPrecondition, text)
        }
        Failure::QueueTimeout { waited, reasons } => failed(
            Code::FailedPrecondition,
            format!(
                "no worker that can run this action joined within {} s (`--queue-timeout`): {}",
                waited / 1000,
                reasons.join("; ")
            ),
        ),
        Failure::Lost { reason } => failed(Code::Aborted, reason.clone()),
        Failure::AttemptsExhausted { attempts, last } => {
            failed(Code::Internal, format!("gave up after {attempts} attempts; the last failure: {last}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_and_the_hosts_network_are_offered_by_workers_that_have_them() {
        let executors = vec![property::SANDBOX.to_owned(), property::IN_ROOT.to_owned()];
        let environment = v1::Environment { executors, host_network: true, ..Default::default() };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let with = offered(&environment);
        assert!(with.contains(&pair("kiln.executor", "root")) && with.contains(&pair("kiln.network", "host")));
        let without = offered(&v1::Environment::default());
        assert!(
            !without.contains(&pair("kiln.executor", "root")) && without.contains(&pair("kiln.executor", "sandbox"))
        );
        assert!(without.iter().all(|(name, _)| name != property::NETWORK));
        let lacking = |executor: &str| {
            let reasons = vec![format!("worker `vm` is missing required kiln.executor={executor}")];
            let response = failure_response(&Failure::NoWorkerMatches { reasons });
            response.status.unwrap_or_default().message
        };
        assert!(
            lacking("root").contains("`kiln workers`") && !lacking("root").contains("Docker"),
            "{}",
            lacking("root")
        );
        assert!(lacking("docker").contains("--docker required"), "{}", lacking("docker"));
    }
}
