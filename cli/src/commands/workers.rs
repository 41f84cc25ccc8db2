//! `kiln workers`.

use kiln_proto::v1;
use serde_json::{Value, json};

use super::time;
use crate::farm::Farm;
use crate::{Code, Error, args, local};
use kiln_terminal::{self as terminal, Table, fixed, flexible};

pub(super) async fn run(farm: &Farm, args: args::Json) -> Result<Code, Error> {
    let status = farm.status().await?;
    if args.json {
        return local::print_json(&status.workers.iter().map(object).collect());
    }
    if status.workers.is_empty() {
        terminal::say("no worker has joined this farm; `kiln-worker --coordinator URL` on another machine does");
        return Ok(Code::Success);
    }
    let columns = [
        flexible("worker"),
        fixed("state"),
        flexible("machine").optional(3),
        flexible("os").optional(2),
        flexible("libc").optional(6),
        fixed("cpus"),
        fixed("memory").optional(5),
        fixed("running").optional(1),
        flexible("sandbox").optional(7),
        flexible("docker").optional(8),
        flexible("roots").optional(9),
        flexible("version").optional(4),
    ];
    let rows = status.workers.iter().map(row);
    local::print(Table::new(&columns).with(rows).for_stdout().as_bytes())
}

fn state(worker: &v1::Worker) -> &'static str {
    match (worker.connected, worker.distrusted, worker.draining) {
        (false, _, _) => "away",
        (true, true, _) => "distrusted",
        (true, false, true) => "draining",
        (true, false, false) => "ready",
    }
}

fn row(worker: &v1::Worker) -> Vec<String> {
    let environment = worker.environment.clone().unwrap_or_default();
    let (all, used) = (worker.capacity.unwrap_or_default(), worker.used.unwrap_or_default());
    let cpus = |milli: u32| f64::from(milli) / 1000.0;
    let emulated = if environment.emulated { "(emulated)" } else { "" };
    let machine = [environment.isa.as_str(), environment.cpu_level.as_str(), emulated].join(" ");
    vec![
        worker.worker.clone(),
        state(worker).to_owned(),
        machine.trim().to_owned(),
        environment.os,
        environment.libc,
        format!("{}/{}", cpus(used.milli_cpus), cpus(all.milli_cpus)),
        format!("{}/{}", terminal::size(used.memory_bytes), terminal::size(all.memory_bytes)),
        worker.running.to_string(),
        environment.sandbox,
        environment.docker,
        environment.roots,
        worker.version.clone(),
    ]
}

fn object(worker: &v1::Worker) -> Value {
    let environment = worker.environment.clone().unwrap_or_default();
    let (all, used) = (worker.capacity.unwrap_or_default(), worker.used.unwrap_or_default());
    json!({
        "worker": worker.worker,
        "state": state(worker),
        "version": worker.version,
        "last_seen": time(worker.last_seen),
        "running": worker.running,
        "cpus": f64::from(all.milli_cpus) / 1000.0,
        "cpus_used": f64::from(used.milli_cpus) / 1000.0,
        "memory_bytes": all.memory_bytes,
        "memory_bytes_used": used.memory_bytes,
        "environment": {
            "fingerprint": environment.fingerprint,
            "isa": environment.isa,
            "os": environment.os,
            "libc": environment.libc,
            "cpu_level": environment.cpu_level,
            "emulated": environment.emulated,
            "kernel": environment.kernel,
            "sandbox": environment.sandbox,
            "docker": environment.docker,
            "roots": environment.roots,
            "host_network": environment.host_network,
            "executors": environment.executors,
            "tools": environment.tools.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "labels": environment.labels.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        },
    })
}
