//! The farm's state at a scrape: queues and workers by platform, and the store's size.
//!
//! What waits is counted whether or not a worker that could run it is there, so that an autoscaler can start one. Platforms that
//! had a queue keep their series, at zero, and so does each declared pool.
//! Invariant: a platform's labels are instruction sets known to Kiln and the first few operating systems of workers;
//! clients' requests create no labels.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kiln_proto::{property, v1};
use kiln_scheduler::{Pool, Requirements};
use kiln_telemetry::label::{Bounded, OTHER};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

/// Maximum number of operating systems with their own label.
const SYSTEMS: usize = 16;
/// Environments of workers that are remembered, so that their systems are known when none of these workers is there.
const ENVIRONMENTS: usize = 1_000;
/// The label of an action that requires nothing specific.
const ANY: &str = "any";

type Amount = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Platform {
    isa: &'static str,
    os: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerState {
    isa: &'static str,
    os: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

/// The farm's state when it was last read.
#[derive(Debug)]
pub(super) struct View {
    farm: Mutex<v1::FarmStatus>,
    leads: AtomicBool,
    pools: Mutex<Vec<Pool>>,
    systems: Bounded,
    /// The operating systems of environments, by fingerprint.
    environments: Mutex<HashMap<String, String>>,
    /// Platforms that had a queue or workers.
    seen: Mutex<BTreeSet<Platform>>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            farm: Mutex::default(),
            leads: AtomicBool::new(true),
            pools: Mutex::default(),
            systems: Bounded::new(SYSTEMS),
            environments: Mutex::default(),
            seen: Mutex::default(),
        }
    }
}

impl View {
    pub(super) fn set(&self, farm: v1::FarmStatus) {
        let mut known = self.environments.lock();
        if known.len() > ENVIRONMENTS {
            known.clear();
        }
        let environments = farm.workers.iter().chain(&farm.away).filter_map(|worker| worker.environment.as_ref());
        known.extend(environments.map(|environment| (environment.fingerprint.clone(), environment.os.clone())));
        *self.farm.lock() = farm;
    }

    /// Whether this coordinator leads its farm: what the farm does is told by the one that does.
    pub(super) fn leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// The pools that the farm was told of.
    pub(super) fn declare(&self, pools: &[Pool]) {
        *self.pools.lock() = pools.to_vec();
    }

    fn of_worker(&self, environment: &v1::Environment) -> Platform {
        Platform { isa: isa(&environment.isa), os: self.systems.admit(&environment.os) }
    }

    /// The platform that a queue's actions require. An environment's fingerprint stands for its operating system.
    fn of_queue(&self, asked: &HashMap<String, String>) -> Platform {
        let fingerprint = asked.get(property::ENVIRONMENT);
        let of_environment = || self.environments.lock().get(fingerprint?).cloned();
        let os = match (asked.get(property::OS).cloned().or_else(of_environment), fingerprint) {
            (Some(os), _) => self.systems.known(&os),
            (None, Some(_)) => OTHER.to_owned(),
            (None, None) => ANY.to_owned(),
        };
        let asked = asked.get(property::ISA).map(String::as_str);
        Platform { isa: asked.map_or(ANY, isa), os }
    }

    /// The first declared pool whose workers could run a queue's actions.
    fn pool(&self, asked: &HashMap<String, String>) -> Option<OfPool> {
        let properties = asked.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let requirements = Requirements { properties, ..Requirements::default() };
        let pools = self.pools.lock();
        pools.iter().find(|pool| pool.may_run(&requirements)).map(|pool| OfPool { pool: pool.name.clone() })
    }

    /// The gauges with everything that they were ever about, at zero.
    fn zeros(&self) -> Gauges {
        let gauges = Gauges::default();
        for platform in self.seen.lock().iter() {
            drop(gauges.queued.get_or_create(platform));
            drop(gauges.oldest.get_or_create(platform));
            drop(gauges.running.get_or_create(platform));
        }
        for pool in self.pools.lock().iter() {
            drop(gauges.queued_by_pool.get_or_create(&OfPool { pool: pool.name.clone() }));
        }
        gauges
    }
}

fn isa(name: &str) -> &'static str {
    match name {
        "x86-64" => "x86-64",
        "arm-a64" => "arm-a64",
        _ => OTHER,
    }
}

/// The gauges of one scrape.
#[derive(Default)]
struct Gauges {
    queued: Family<Platform, Gauge>,
    queued_by_pool: Family<OfPool, Gauge>,
    oldest: Family<Platform, Amount>,
    workers: Family<WorkerState, Gauge>,
    running: Family<Platform, Gauge>,
    cpus: Family<Platform, Amount>,
    cpus_used: Family<Platform, Amount>,
    memory: Family<Platform, Gauge>,
    memory_used: Family<Platform, Gauge>,
}

impl Gauges {
    fn take_worker(&self, platform: &Platform, worker: &v1::Worker) {
        let state = match (worker.connected, worker.draining) {
            (false, _) => "away",
            (true, true) => "draining",
            (true, false) => "ready",
        };
        let Platform { isa, os } = platform.clone();
        self.workers.get_or_create(&WorkerState { isa, os, state }).inc();
        self.running.get_or_create(platform).inc_by(i64::from(worker.running));
        let (all, used) = (worker.capacity.unwrap_or_default(), worker.used.unwrap_or_default());
        let cpus = |capacity: v1::Capacity| f64::from(capacity.milli_cpus) / 1_000.0;
        let bytes = |capacity: v1::Capacity| i64::try_from(capacity.memory_bytes).unwrap_or(i64::MAX);
        self.cpus.get_or_create(platform).inc_by(cpus(all));
        self.cpus_used.get_or_create(platform).inc_by(cpus(used));
        self.memory.get_or_create(platform).inc_by(bytes(all));
        self.memory_used.get_or_create(platform).inc_by(bytes(used));
    }

    fn take_queue(&self, platform: &Platform, pool: Option<OfPool>, queue: &v1::Queue) {
        let queued = i64::try_from(queue.queued).unwrap_or(i64::MAX);
        self.queued.get_or_create(platform).inc_by(queued);
        if let Some(pool) = pool {
            self.queued_by_pool.get_or_create(&pool).inc_by(queued);
        }
        let oldest = queue.oldest_ms as f64 / 1_000.0;
        let known = self.oldest.get_or_create(platform).get();
        self.oldest.get_or_create(platform).set(known.max(oldest));
    }
}

impl Collector for View {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let farm = self.farm.lock().clone();
        let workers: Vec<_> = farm
            .workers
            .iter()
            .map(|worker| (self.of_worker(&worker.environment.clone().unwrap_or_default()), worker))
            .collect();
        let queues: Vec<_> = farm
            .queues
            .iter()
            .map(|queue| {
                let asked = queue.platform.clone().into_iter().collect();
                (self.of_queue(&asked), self.pool(&asked), queue)
            })
            .collect();
        let platforms =
            workers.iter().map(|(platform, _)| platform).chain(queues.iter().map(|(platform, ..)| platform));
        self.seen.lock().extend(platforms.cloned());
        let gauges = self.zeros();
        workers.iter().for_each(|(platform, worker)| gauges.take_worker(platform, worker));
        for (platform, pool, queue) in queues {
            gauges.take_queue(&platform, pool, queue);
        }
        let mut put = |name: &str, help: &str, metric: &dyn Encoded| metric.put(&mut encoder, name, help);
        let leads = u64::from(self.leads.load(Ordering::Relaxed));
        put(
            "coordinator_leads",
            "1 if this coordinator leads its farm, 0 if another one does",
            &ConstGauge::new(leads),
        )?;
        put("queue_actions", "Actions waiting for a worker, by platform", &gauges.queued)?;
        put("pool_queue_actions", "Actions waiting that workers of a declared pool could run", &gauges.queued_by_pool)?;
        put("queue_oldest_seconds", "How long the oldest waiting action has waited", &gauges.oldest)?;
        put("workers", "Workers, by platform and state", &gauges.workers)?;
        put("running_actions", "Actions assigned to workers", &gauges.running)?;
        put("farm_cpus", "CPUs offered by workers", &gauges.cpus)?;
        put("farm_cpus_used", "Reserved CPUs", &gauges.cpus_used)?;
        put("farm_memory_bytes", "Memory offered by workers", &gauges.memory)?;
        put("farm_memory_used_bytes", "Reserved memory", &gauges.memory_used)?;
        put("store_bytes", "Bytes of cached blobs on this coordinator's disk", &ConstGauge::new(farm.store_bytes))?;
        put("store_capacity_bytes", "Limit on these bytes", &ConstGauge::new(farm.store_capacity_bytes))
    }
}

/// A metric that can be registered under a name.
trait Encoded {
    fn put(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> Result<(), std::fmt::Error>;
}

impl<M: EncodeMetric + TypedMetric> Encoded for M {
    fn put(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> Result<(), std::fmt::Error> {
        self.encode(encoder.encode_descriptor(name, help, None, M::TYPE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    fn scrape(view: &std::sync::Arc<View>) -> String {
        let mut registry = Registry::with_prefix("kiln");
        registry.register_collector(Box::new(view.clone()));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    fn worker(isa: &str, os: &str) -> v1::Worker {
        let environment =
            v1::Environment { isa: isa.into(), os: os.into(), fingerprint: format!("{isa}{os}"), ..Default::default() };
        let capacity = Some(v1::Capacity { milli_cpus: 2_500, memory_bytes: 1 << 30 });
        let environment = Some(environment);
        v1::Worker { environment, capacity, connected: true, running: 3, ..Default::default() }
    }

    fn queue(asked: &[(&str, &str)], queued: u64) -> v1::Queue {
        let platform = asked.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        v1::Queue { platform, queued, oldest_ms: 1_500, ..v1::Queue::default() }
    }

    #[test]
    fn queues_and_workers_are_summed_by_platform() {
        let view = std::sync::Arc::new(View::default());
        let workers = vec![worker("x86-64", "debian:12"), worker("x86-64", "debian:12")];
        let by_fingerprint = queue(&[("ISA", "x86-64"), (property::ENVIRONMENT, "x86-64debian:12")], 4);
        let queues = vec![by_fingerprint, queue(&[("ISA", "x86-64"), (property::OS, "debian:12")], 1), queue(&[], 2)];
        view.set(v1::FarmStatus { workers, queues, ..Default::default() });
        let text = scrape(&view);
        for line in [
            "kiln_queue_actions{isa=\"x86-64\",os=\"debian:12\"} 5",
            "kiln_queue_actions{isa=\"any\",os=\"any\"} 2",
            "kiln_queue_oldest_seconds{isa=\"any\",os=\"any\"} 1.5",
            "kiln_workers{isa=\"x86-64\",os=\"debian:12\",state=\"ready\"} 2",
            "kiln_farm_cpus{isa=\"x86-64\",os=\"debian:12\"} 5.0",
            "kiln_running_actions{isa=\"x86-64\",os=\"debian:12\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "expected `{line}` in\n{text}");
        }
    }

    #[test]
    fn what_waits_is_counted_without_a_worker_and_stays_as_zero() {
        let view = std::sync::Arc::new(View::default());
        let pools =
            ["linux/arm64", "linux/amd64", "linux/amd64,label.gpu=a100"].map(|text| crate::pools::pool(text).unwrap());
        view.declare(&pools);
        let (here, gone) = (worker("x86-64", "debian:12"), worker("arm-a64", "ubuntu:24.04"));
        view.set(v1::FarmStatus { workers: vec![here.clone(), gone.clone()], ..Default::default() });
        scrape(&view);
        let queues = vec![
            queue(&[("ISA", "arm-a64"), (property::ENVIRONMENT, "arm-a64ubuntu:24.04")], 4),
            queue(&[("ISA", "x86-64"), ("kiln.label.gpu", "a100")], 2),
            queue(&[("ISA", "x86-64")], 1),
        ];
        // The other worker is away, and then nobody remembers it.
        for away in [vec![gone], Vec::new()] {
            view.set(v1::FarmStatus {
                workers: vec![here.clone()],
                away,
                queues: queues.clone(),
                ..Default::default()
            });
            has(
                &view,
                &[
                    "kiln_queue_actions{isa=\"arm-a64\",os=\"ubuntu:24.04\"} 4",
                    "kiln_queue_oldest_seconds{isa=\"arm-a64\",os=\"ubuntu:24.04\"} 1.5",
                    "kiln_running_actions{isa=\"arm-a64\",os=\"ubuntu:24.04\"} 0",
                    "kiln_pool_queue_actions{pool=\"linux/arm64\"} 4",
                    "kiln_pool_queue_actions{pool=\"linux/amd64,label.gpu=a100\"} 2",
                    "kiln_pool_queue_actions{pool=\"linux/amd64\"} 1",
                ],
            );
        }
        view.set(v1::FarmStatus::default());
        has(
            &view,
            &[
                "kiln_queue_actions{isa=\"arm-a64\",os=\"ubuntu:24.04\"} 0",
                "kiln_queue_oldest_seconds{isa=\"arm-a64\",os=\"ubuntu:24.04\"} 0.0",
                "kiln_running_actions{isa=\"x86-64\",os=\"debian:12\"} 0",
                "kiln_pool_queue_actions{pool=\"linux/arm64\"} 0",
            ],
        );
    }

    #[track_caller]
    fn has(view: &std::sync::Arc<View>, lines: &[&str]) {
        let text = scrape(view);
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "expected `{line}` in\n{text}");
        }
    }

    #[test]
    fn neither_clients_nor_workers_make_labels_without_bound() {
        let view = std::sync::Arc::new(View::default());
        let strange = |number: usize| format!("os-{number}");
        let workers = (0..1_000).map(|number| worker(&strange(number), &strange(number))).collect();
        let queues = (0..1_000).map(|number| queue(&[("ISA", &strange(number)), (property::OS, "\"evil\n")], 1));
        view.set(v1::FarmStatus { workers, queues: queues.collect(), ..Default::default() });
        let text = scrape(&view);
        let series = text.lines().filter(|line| line.starts_with("kiln_workers{")).count();
        assert_eq!(series, SYSTEMS + 1, "expected {SYSTEMS} systems and `other`");
        let queued = text.lines().filter(|line| line.starts_with("kiln_queue_actions{"));
        let queues: Vec<&str> = queued.filter(|line| !line.ends_with(" 0")).collect();
        assert_eq!(queues, ["kiln_queue_actions{isa=\"other\",os=\"other\"} 1000"]);
        let series = scrape(&view).lines().filter(|line| line.starts_with("kiln_queue_actions{")).count();
        assert!(series <= SYSTEMS + 2, "expected a bounded number of series, found {series}");
    }
}
