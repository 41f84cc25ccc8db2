//! The farm's status for operators.

use std::collections::{BTreeSet, HashMap, HashSet};

use kiln_proto::v1;
use kiln_scheduler::{ActionKey, Capacity, WaiterId};

use super::Owner;
use crate::wait::Wait;

impl Owner {
    /// What a caller is waiting for.
    pub(super) fn wait_of(&self, waiter: WaiterId) -> Option<Wait> {
        let key = self.waiters.get(&waiter)?;
        let build_of = |key: &ActionKey| Some(self.actions.get(key)?.charge.build.clone());
        Some(Wait::of(self.scheduler.wait_of(key)?, key, build_of))
    }

    /// Remembered workers that are not connected.
    fn away(&self) -> Vec<v1::Worker> {
        let here: HashSet<_> = self.scheduler.workers().into_iter().map(|view| view.worker.0).collect();
        let distrusted = self.distrusted.now();
        let away = self.memory.workers().filter(|worker| !here.contains(worker.worker.as_str()));
        away.map(|worker| v1::Worker { distrusted: distrusted.lasts(&worker.worker), ..worker.clone() }).collect()
    }

    pub(super) fn farm(&self) -> v1::FarmStatus {
        let (now, distrusted) = (self.began.elapsed().as_millis() as u64, self.distrusted.now());
        let to_wire =
            |capacity: Capacity| v1::Capacity { milli_cpus: capacity.milli_cpus, memory_bytes: capacity.memory_bytes };
        let workers = self.scheduler.workers().into_iter().map(|view| {
            let link = self.links.get(&view.worker);
            // One whose connection has just broken off is expected back as what it was: builds do not fail because of it.
            let known = self.memory.worker(&view.worker.0).filter(|_| link.is_none()).cloned().unwrap_or_default();
            v1::Worker {
                worker: view.worker.0.to_string(),
                environment: link.map(|link| link.environment.clone()).or(known.environment),
                capacity: Some(to_wire(view.capacity)),
                used: Some(to_wire(view.used)),
                running: view.running as u32,
                draining: view.draining,
                distrusted: distrusted.lasts(&view.worker.0),
                connected: view.connected,
                last_seen: link.map(|link| link.last_seen).or(known.last_seen),
                version: link.map(|link| link.version.clone()).unwrap_or(known.version),
                tenants: link.map(|link| link.tenants.clone()).unwrap_or(known.tenants),
            }
        });
        let queues = self.scheduler.queues(now).into_iter().map(|view| v1::Queue {
            platform: view.properties.iter().cloned().collect(),
            tenant: view.tenant,
            // Depends on who asks: the service fills it in.
            of_another_tenant: false,
            queued: view.queued as u64,
            oldest_ms: view.oldest_ms,
            waits_for: view.wait.map(in_words).unwrap_or_default(),
        });
        v1::FarmStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workers: workers.collect(),
            queues: queues.collect(),
            away: self.away(),
            // Belongs to the tenant: its handle fills it in.
            store_bytes: 0,
            store_capacity_bytes: 0,
            toolchains: HashMap::new(),
            // Are of the coordinator, whose service fills them in.
            cache_port: 0,
            cache_url: String::new(),
            cache_writes: false,
            cache_writes_scopes: false,
            time: None,
            stores: Vec::new(),
        }
    }
}

/// What the first action of a queue waits for, without naming whose work holds the workers.
fn in_words(wait: kiln_scheduler::Wait) -> String {
    match wait {
        kiln_scheduler::Wait::Worker { reasons, .. } => reasons.join("; "),
        kiln_scheduler::Wait::Return { workers } => {
            let names: Vec<String> = workers.iter().map(|worker| format!("`{}`", worker.0)).collect();
            format!("workers that have not come back since the coordinator restarted: {}", names.join(", "))
        }
        kiln_scheduler::Wait::Room { holders, .. } => {
            let workers: BTreeSet<&str> = holders.iter().map(|(worker, _)| &*worker.0).collect();
            match workers.len() {
                0 => "capacity on a worker, which is reserved for a larger action".to_owned(),
                1 => format!("capacity on worker `{}`", workers.iter().next().unwrap_or(&"")),
                some => format!("capacity on one of {some} workers"),
            }
        }
    }
}
