//! Generated event sequences against a model that knows only the rules: effects are checked after every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const WORKERS: [(&str, &str, u32); 4] =
    [("w0", "x86-64", 1000), ("w1", "x86-64", 3000), ("w2", "aarch64", 2000), ("w3", "aarch64", 4000)];
const KEYS: u64 = 10;

#[derive(Debug, Clone)]
enum Op {
    Submit { key: u64, tenant: u8, build: u8, priority: i32, path_weight: u64 },
    Leave(usize),
    Join { worker: usize, forgets: bool },
    Disconnect(usize),
    Gone(usize),
    Started(usize),
    Finish { which: usize, fault: bool },
    Drain { worker: usize, on: bool },
    Advance(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let worker = 0..WORKERS.len();
    let op = prop_oneof![
        8 => (0..KEYS, 0..3u8, 0..2u8, -1..2i32, 1..4u64)
            .prop_map(|(key, tenant, build, priority, path_weight)| Op::Submit { key, tenant, build, priority, path_weight }),
        2 => (0..8usize).prop_map(Op::Leave),
        4 => (worker.clone(), prop::bool::weighted(0.2)).prop_map(|(worker, forgets)| Op::Join { worker, forgets }),
        1 => worker.clone().prop_map(Op::Disconnect),
        1 => worker.clone().prop_map(Op::Gone),
        2 => (0..8usize).prop_map(Op::Started),
        6 => (0..8usize, prop::bool::weighted(0.2)).prop_map(|(which, fault)| Op::Finish { which, fault }),
        1 => (worker, any::<bool>()).prop_map(|(worker, on)| Op::Drain { worker, on }),
        3 => (1..20_000u64).prop_map(Op::Advance),
    ];
    prop::collection::vec(op, 1..150)
}

/// The requirements of the action with this number; no worker satisfies the last one's.
/// Whether actions of this key are given up when they are lost.
fn is_once(key: u64) -> bool {
    key % 5 == 3
}

fn requirements(key: u64) -> Requirements {
    let isa = match key {
        9 => "riscv64",
        key if key % 2 == 0 => "x86-64",
        _ => "aarch64",
    };
    let milli_cpus = [500, 1000, 2000][(key % 3) as usize];
    Requirements {
        properties: properties(&[("ISA", isa)]),
        capacity: capacity(milli_cpus),
        opportunistic: key % 4 == 1,
        ..Requirements::default()
    }
}

#[derive(Debug, Default, Clone)]
struct ModelWorker {
    known: bool,
    connected: bool,
    draining: bool,
    /// When it left, if it did.
    left: Option<u64>,
    /// What the farm counts as running on it: lease to key and CPUs.
    leases: BTreeMap<LeaseId, (u64, u32)>,
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    next_waiter: u64,
    workers: BTreeMap<String, ModelWorker>,
    /// Who waits for which key.
    waiters: BTreeMap<WaiterId, u64>,
    /// The only live lease of a key.
    live: BTreeMap<u64, LeaseId>,
    attempts: BTreeMap<u64, u32>,
    /// Cancelled leases whose worker has not yet reported their end.
    cancelled: BTreeSet<LeaseId>,
    used: BTreeSet<LeaseId>,
    /// Keys and the worker that could not carry them out: they may wait for another.
    faulted: BTreeMap<u64, String>,
    /// Workers of an earlier run that may still bring what they run.
    returning: BTreeSet<&'static str>,
}

/// How long they are waited for.
const RETURN_GRACE: u64 = 10_000;

fn could_run(worker: &(&str, &str, u32), wanted: &Requirements) -> bool {
    let (_, isa, cpus) = worker;
    wanted.properties.contains(&("ISA".to_owned(), (*isa).to_owned())) && wanted.capacity.milli_cpus <= *cpus
}

fn number(key: &ActionKey) -> u64 {
    key.0[1..].parse().expect("a key of the test")
}

impl Model {
    fn waits(&self, key: u64) -> BTreeSet<WaiterId> {
        self.waiters.iter().filter(|(_, waited)| **waited == key).map(|(waiter, _)| *waiter).collect()
    }

    fn answer(&mut self, key: u64, waiters: &[WaiterId]) {
        let told: BTreeSet<WaiterId> = waiters.iter().copied().collect();
        assert_eq!(told.len(), waiters.len(), "a waiter was told twice: {waiters:?}");
        assert_eq!(told, self.waits(key), "expected everyone who waits for a{key} to be told");
        self.waiters.retain(|_, waited| *waited != key);
        self.attempts.remove(&key);
        self.faulted.remove(&key);
    }

    /// Removes a lease from its worker.
    fn off(&mut self, lease: LeaseId) {
        for worker in self.workers.values_mut() {
            worker.leases.remove(&lease);
        }
        self.live.retain(|_, live| *live != lease);
        self.cancelled.remove(&lease);
    }

    /// Whether a worker that is not back yet may be running this.
    fn is_held(&self, key: u64) -> bool {
        let wanted = requirements(key);
        WORKERS.iter().any(|worker| self.returning.contains(worker.0) && could_run(worker, &wanted))
    }

    fn check(&mut self, effects: &[Effect], config: &Config) {
        for effect in effects {
            match effect {
                Effect::Assign { worker, lease, key, attempt, reserved } => {
                    let key = number(key);
                    assert!(self.used.insert(*lease), "lease {lease:?} was used before");
                    assert!(!self.waits(key).is_empty(), "a{key} was assigned and nobody waits for it");
                    assert!(!self.live.contains_key(&key), "a{key} has a live lease already");
                    assert!(*attempt <= config.max_attempts, "a{key} is tried {attempt} times");
                    let tries = self.attempts.entry(key).or_default();
                    *tries += 1;
                    assert!(*tries <= config.max_attempts, "a{key} was tried {tries} times");
                    assert!(!self.is_held(key), "a{key} was assigned and {:?} may bring it", self.returning);
                    let wanted = requirements(key);
                    assert_eq!(*reserved, wanted.capacity);
                    let (_, isa, cpus) = WORKERS.iter().find(|(name, ..)| *name == &*worker.0).expect("a known worker");
                    assert!(wanted.properties.contains(&("ISA".to_owned(), (*isa).to_owned())), "a{key} on {isa}");
                    let model = self.workers.get_mut(&*worker.0).expect("a worker that joined");
                    assert!(model.connected && !model.draining, "a{key} went to {worker:?}, which takes none");
                    model.leases.insert(*lease, (key, reserved.milli_cpus));
                    let used: u32 = model.leases.values().map(|(_, cpus)| cpus).sum();
                    assert!(used <= *cpus, "{worker:?} has {cpus} and {used} are in use");
                    self.live.insert(key, *lease);
                    self.faulted.remove(&key);
                }
                Effect::CancelLease { lease, .. } => {
                    self.cancelled.insert(*lease);
                    self.live.retain(|_, live| live != lease);
                }
                Effect::Adopted { key, lease, .. } => {
                    let key = number(key);
                    assert!(!self.live.contains_key(&key), "a{key} has a live lease already");
                    *self.attempts.entry(key).or_default() += 1;
                    self.live.insert(key, *lease);
                }
                Effect::Completed { key, lease, waiters } => {
                    let key = number(key);
                    if !waiters.is_empty() {
                        assert!(!self.cancelled.contains(lease), "a cancelled lease completed a{key}");
                    }
                    self.answer(key, waiters);
                }
                Effect::Failed { key, waiters, failure } => {
                    let key = number(key);
                    assert!(!self.live.contains_key(&key), "a{key} was given up while it ran");
                    match failure {
                        Failure::AttemptsExhausted { attempts, .. } => assert_eq!(*attempts, config.max_attempts),
                        Failure::Lost { .. } => assert!(is_once(key), "a{key} was given up at its first loss"),
                        Failure::NoWorkerMatches { .. } => {
                            let wanted = requirements(key);
                            let could = |worker: &(&str, &str, u32)| {
                                let expected = |left: u64| self.now < left + config.remember_for;
                                self.workers
                                    .get(worker.0)
                                    .is_some_and(|worker| worker.known || worker.left.is_some_and(expected))
                                    && could_run(worker, &wanted)
                            };
                            assert!(!WORKERS.iter().any(could), "a{key} was refused and a worker matches");
                        }
                        Failure::QueueTimeout { waited, .. } => {
                            assert!(*waited >= config.queue_timeout, "a{key} was given up after {waited} ms");
                            let wanted = requirements(key);
                            let takes = |worker: &(&str, &str, u32)| {
                                self.workers.get(worker.0).is_some_and(|worker| worker.connected && !worker.draining)
                                    && could_run(worker, &wanted)
                            };
                            assert!(!WORKERS.iter().any(takes), "a{key} was given up and a worker takes work");
                        }
                    }
                    self.answer(key, waiters);
                }
                Effect::Requeued { key, waiters, .. } => {
                    assert!(!is_once(number(key)), "{key:?} runs again");
                    let key = number(key);
                    assert!(!self.live.contains_key(&key), "a{key} was queued again while it ran");
                    assert_eq!(waiters.iter().copied().collect::<BTreeSet<_>>(), self.waits(key));
                }
                Effect::Started { .. } | Effect::LeaseEnded(_) => {}
            }
        }
    }

    /// No action waits while a worker has capacity for it, unless another may bring it.
    fn check_no_idling(&self) {
        let queued: BTreeSet<u64> = self.waiters.values().filter(|key| !self.live.contains_key(key)).copied().collect();
        for key in queued {
            if self.is_held(key) {
                continue;
            }
            let wanted = requirements(key);
            let matches = |worker: &(&str, &str, u32)| {
                self.workers.get(worker.0).is_some_and(|worker| worker.connected && !worker.draining)
                    && could_run(worker, &wanted)
            };
            let matching: Vec<_> = WORKERS.iter().copied().filter(matches).collect();
            for (name, _, cpus) in &matching {
                if matching.len() > 1 && self.faulted.get(&key).is_some_and(|faulty| faulty == name) {
                    continue;
                }
                let free = cpus - self.workers[*name].leases.values().map(|(_, cpus)| cpus).sum::<u32>();
                assert!(wanted.capacity.milli_cpus > free, "a{key} waits and {name} has {free} free");
            }
        }
    }
}

fn offered(name: &str, isa: &str, milli_cpus: u32) -> WorkerOffer {
    WorkerOffer {
        properties: properties(&[("ISA", isa)]),
        capacity: Capacity { milli_cpus, memory_bytes: 1000 * GIB },
        ..offer(name, milli_cpus)
    }
}

struct Run {
    farm: Scheduler,
    model: Model,
    config: Config,
    /// Leases that began and were not reported as ended.
    open: BTreeSet<LeaseId>,
}

impl Run {
    /// Of the workers, `returning` were connected when an earlier run ended.
    fn new(returning: &BTreeSet<usize>) -> Self {
        let (mut model, mut remembered) = (Model::default(), Vec::new());
        for (name, isa, cpus) in returning.iter().map(|worker| WORKERS[*worker]) {
            model.returning.insert(name);
            model.workers.insert(name.to_owned(), ModelWorker { left: Some(0), ..ModelWorker::default() });
            remembered.push((offered(name, isa, cpus), 60_000));
        }
        // No capacity is reserved, so that idling is always wrong; reservation has its own example.
        let config =
            Config { reserve_after: u64::MAX, queue_timeout: 30_000, remember_for: 60_000, ..Config::default() };
        let config = Config {
            remembered,
            returning: model.returning.iter().map(|name| WorkerId((*name).into())).collect(),
            return_grace: RETURN_GRACE,
            ..config
        };
        Self { farm: Scheduler::new(config.clone(), 0), model, config, open: BTreeSet::new() }
    }

    fn step(&mut self, event: Event) {
        if self.model.now >= RETURN_GRACE {
            self.model.returning.clear();
        }
        // Workers whose grace ends now are removed before any other event about them.
        let effects = self.farm.step(self.model.now, event);
        let alive: BTreeSet<String> = self.farm.workers().into_iter().map(|view| view.worker.0.to_string()).collect();
        let now = self.model.now;
        let gone: Vec<LeaseId> = self
            .model
            .workers
            .iter_mut()
            .filter(|(name, _)| !alive.contains(*name))
            .flat_map(|(_, worker)| {
                let left = if worker.known { Some(now) } else { worker.left };
                std::mem::replace(worker, ModelWorker { left, ..ModelWorker::default() }).leases.into_keys()
            })
            .collect();
        gone.into_iter().for_each(|lease| self.model.off(lease));
        self.model.check(&effects, &self.config);
        for effect in &effects {
            match effect {
                Effect::Assign { lease, .. } => assert!(self.open.insert(*lease)),
                Effect::LeaseEnded(lease) => assert!(self.open.remove(lease), "{lease:?} ended twice"),
                _ => {}
            }
        }
        assert_eq!(
            self.open,
            self.farm.leases.keys().copied().collect(),
            "expected each end of a lease to be told, once"
        );
        self.model.check_no_idling();
    }

    fn lease(&self, which: usize) -> Option<(String, LeaseId, u64)> {
        let all: Vec<(String, LeaseId, u64)> = self
            .model
            .workers
            .iter()
            .filter(|(_, worker)| worker.connected)
            .flat_map(|(name, worker)| worker.leases.iter().map(|(lease, (key, _))| (name.clone(), *lease, *key)))
            .collect();
        (!all.is_empty()).then(|| all[which % all.len()].clone())
    }

    fn join(&mut self, worker: usize, forgets: bool) {
        let (name, isa, cpus) = WORKERS[worker];
        let model = self.model.workers.entry(name.to_owned()).or_default();
        if forgets {
            let leases: Vec<LeaseId> = std::mem::take(&mut model.leases).into_keys().collect();
            leases.into_iter().for_each(|lease| self.model.off(lease));
        }
        let model = self.model.workers.entry(name.to_owned()).or_default();
        (model.known, model.connected, model.left) = (true, true, None);
        self.model.returning.remove(name);
        let model = self.model.workers.entry(name.to_owned()).or_default();
        let draining = model.draining;
        let running = model.leases.iter().map(|(lease, (key, cpus))| RunningLease {
            lease: *lease,
            key: ActionKey(format!("a{key}").into()),
            reserved: capacity(*cpus),
        });
        let offer = WorkerOffer { draining, running: running.collect(), ..offered(name, isa, cpus) };
        self.step(Event::WorkerJoined(offer));
    }

    fn finish(&mut self, which: usize, fault: bool) -> bool {
        let Some((worker, lease, key)) = self.lease(which) else { return false };
        let outcome = if fault { Outcome::WorkerFault("broken".into()) } else { Outcome::Completed };
        // The fault of a lease that was cancelled says nothing about where its action runs next.
        if fault && self.model.live.get(&key) == Some(&lease) {
            self.model.faulted.insert(key, worker.clone());
        }
        self.model.off(lease);
        self.step(Event::Finished { worker: WorkerId(worker.into()), lease, outcome });
        true
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Submit { key, tenant, build, priority, path_weight } => {
                let waiter = WaiterId(self.model.next_waiter);
                self.model.next_waiter += 1;
                self.model.waiters.insert(waiter, key);
                self.step(Event::Submit(Submission {
                    waiter,
                    key: ActionKey(format!("a{key}").into()),
                    requirements: requirements(key),
                    share: format!("t{tenant}"),
                    build: format!("b{build}"),
                    priority,
                    path_weight,
                    inputs: vec![key],
                    wait_limit: None,
                    once: is_once(key),
                    avoid: None,
                }));
            }
            Op::Leave(which) => {
                let waiting: Vec<WaiterId> = self.model.waiters.keys().copied().collect();
                if !waiting.is_empty() {
                    let waiter = waiting[which % waiting.len()];
                    let key = self.model.waiters.remove(&waiter).unwrap_or_default();
                    if self.model.waits(key).is_empty() {
                        self.model.attempts.remove(&key);
                        self.model.faulted.remove(&key);
                    }
                    self.step(Event::Leave(waiter));
                }
            }
            Op::Join { worker, forgets } => self.join(worker, forgets),
            Op::Disconnect(worker) => {
                let name = WORKERS[worker].0;
                if let Some(model) = self.model.workers.get_mut(name) {
                    model.connected = false;
                }
                self.step(Event::WorkerDisconnected(WorkerId(name.into())));
            }
            Op::Gone(worker) => {
                let name = WORKERS[worker].0;
                // It leaves in order: what it ran does not count as an attempt.
                let leases = self.model.workers.get(name).map(|model| model.leases.clone()).unwrap_or_default();
                for (lease, (key, _)) in leases {
                    if self.model.live.get(&key) == Some(&lease) {
                        *self.model.attempts.entry(key).or_default() -= 1;
                    }
                }
                self.step(Event::WorkerGone(WorkerId(name.into())));
            }
            Op::Started(which) => {
                if let Some((_, lease, _)) = self.lease(which) {
                    self.step(Event::Started(lease));
                }
            }
            Op::Finish { which, fault } => drop(self.finish(which, fault)),
            Op::Drain { worker, on } => {
                let name = WORKERS[worker].0;
                if let Some(model) = self.model.workers.get_mut(name).filter(|model| model.known) {
                    model.draining = on;
                }
                self.step(Event::Drain { worker: WorkerId(name.into()), on });
            }
            Op::Advance(by) => {
                self.model.now += by;
                self.step(Event::Tick);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_keeps_the_invariants_and_ends_with_every_waiter_told(
        returning in prop::collection::btree_set(0..WORKERS.len(), 0..3),
        ops in ops(),
    ) {
        let mut run = Run::new(&returning);
        for op in ops {
            run.apply(op);
        }
        // All workers are present and work: nothing may be left waiting.
        for worker in 0..WORKERS.len() {
            run.apply(Op::Drain { worker, on: false });
            run.join(worker, false);
        }
        run.apply(Op::Advance(run.config.queue_timeout));
        let mut ended = 0;
        while run.finish(0, false) {
            ended += 1;
            assert!(ended < 10_000, "leases are handed out without end");
        }
        assert!(run.model.waiters.is_empty(), "never told: {:?}", run.model.waiters);
        assert!(run.farm.workers().iter().all(|worker| worker.used == Capacity::default() && worker.running == 0));
        assert!(run.farm.queues(run.model.now).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However many actions keep arriving, one that needs a whole worker gets it: once it has waited its time, each
    /// other kind that has been passed over for as long may precede it only once.
    #[test]
    fn nothing_starves(
        workers in prop::collection::vec(1..4u32, 1..4),
        arrivals in prop::collection::vec((1..12u32, 1..20u64, 0..3u8), 400),
        submitted in 1..60u64,
    ) {
        const RESERVE_AFTER: u64 = 50;
        const LONGEST: u64 = 20;
        const KINDS: u64 = 12;
        let mut farm = Scheduler::new(Config { reserve_after: RESERVE_AFTER, ..Config::default() }, 0);
        for (number, cpus) in workers.iter().enumerate() {
            farm.step(0, Event::WorkerJoined(offer(&format!("w{number}"), cpus * 1000)));
        }
        let largest = workers.iter().max().copied().unwrap_or(1) * 1000;
        let mut ends: BTreeMap<u64, Vec<(WorkerId, LeaseId)>> = BTreeMap::new();
        let (mut lasts, mut next) = (BTreeMap::new(), 0);
        for now in 1..400 {
            let mut effects = farm.step(now, Event::Tick);
            if now == submitted {
                let requirements = Requirements { capacity: capacity(largest), ..submission(0).requirements };
                effects.extend(farm.step(now, Event::Submit(Submission { requirements, ..submission(1_000_000) })));
            }
            // Five in a tick exceed the capacity of any of these farms.
            for _ in 0..5 {
                let (size, run, tenant) = arrivals[next as usize % arrivals.len()];
                let requirements = Requirements { capacity: capacity(size * 100 + 1), ..submission(0).requirements };
                let tenant = format!("t{tenant}");
                effects.extend(farm.step(now, Event::Submit(Submission { requirements, share: tenant, ..submission(next) })));
                lasts.insert(format!("a{next}"), run);
                next += 1;
            }
            for (worker, lease) in ends.remove(&now).unwrap_or_default() {
                effects.extend(farm.step(now, Event::Finished { worker, lease, outcome: Outcome::Completed }));
            }
            for (worker, lease, key) in assigned(&effects) {
                if key == "a1000000" {
                    let waited = now - submitted;
                    prop_assert!(waited <= RESERVE_AFTER + KINDS * LONGEST, "it waited {waited}");
                    return Ok(());
                }
                ends.entry(now + lasts[&key]).or_default().push((WorkerId(worker.into()), lease));
            }
        }
        prop_assert!(false, "it never ran");
    }
}
