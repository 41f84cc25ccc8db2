//! Which action goes where, against a model that looks at everything each time: all waiting actions, and all workers.

use std::cmp::Reverse;
use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Submit { isa: usize, milli_cpus: u32, share: u64, build: u64, priority: i32, path_weight: u64, inputs: Vec<u64> },
    Leave(usize),
    Join { isa: usize, milli_cpus: u32 },
    Finish(usize),
}

const ISAS: [&str; 2] = ["x86-64", "aarch64"];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let submit =
        ((0..2_usize, 1..4_u32, 0..4_u64), (0..3_u64, -1..2_i32, 0..3_u64), prop::collection::vec(0..12_u64, 0..4));
    let op = prop_oneof![
        10 => submit.prop_map(|((isa, cpus, share), (build, priority, path_weight), inputs)| {
            Op::Submit { isa, milli_cpus: cpus * 500, share, build, priority, path_weight, inputs }
        }),
        1 => (0..50_usize).prop_map(Op::Leave),
        1 => (0..2_usize, 1..5_u32).prop_map(|(isa, cpus)| Op::Join { isa, milli_cpus: cpus * 1000 }),
        8 => (0..50_usize).prop_map(Op::Finish),
    ];
    prop::collection::vec(op, 1..200)
}

/// A share of the farm, or a build in it.
#[derive(Debug, Clone)]
struct Share {
    name: (Option<usize>, u64),
    opened: usize,
    time: u64,
    clock: u64,
    actions: usize,
}

#[derive(Debug, Clone)]
struct Waiting {
    number: u64,
    isa: usize,
    milli_cpus: u32,
    shares: (usize, usize),
    priority: i32,
    path_weight: u64,
    inputs: Vec<u64>,
}

#[derive(Debug)]
struct Worker {
    isa: usize,
    milli_cpus: u32,
    used: u32,
    recent: HashSet<u64>,
}

/// Everything, in the order in which it came.
#[derive(Debug, Default)]
struct Model {
    shares: Vec<Share>,
    clock: u64,
    waiting: Vec<Waiting>,
    workers: Vec<Worker>,
    running: Vec<(usize, LeaseId, Waiting)>,
    /// What should have been assigned in this step: the worker, and the action.
    assigned: Vec<(usize, u64)>,
}

impl Model {
    fn open(&mut self, parent: Option<usize>, name: u64) -> usize {
        let known = self.shares.iter().position(|share| share.name == (parent, name) && share.actions > 0);
        let at = known.unwrap_or_else(|| {
            let time = parent.map_or(self.clock, |parent| self.shares[parent].clock);
            let opened = self.shares.len();
            self.shares.push(Share { name: (parent, name), opened, time, clock: 0, actions: 0 });
            opened
        });
        self.shares[at].actions += 1;
        at
    }

    fn close(&mut self, (share, build): (usize, usize)) {
        self.shares[share].actions -= 1;
        self.shares[build].actions -= 1;
    }

    /// The order within the same requirements, and the one among the first of each.
    fn ranks(&self, one: &Waiting) -> (impl Ord + use<>, impl Ord + use<>) {
        let (share, build) = (&self.shares[one.shares.0], &self.shares[one.shares.1]);
        let (first, last) = (one.priority, (Reverse(one.path_weight), one.number));
        ((first, share.time, share.opened, build.time, build.opened, last), (first, share.time, build.time, last))
    }

    fn assign(&mut self, worker: usize, number: u64) {
        let at = self.waiting.iter().position(|one| one.number == number).expect("an action that waits");
        let one = self.waiting.remove(at);
        self.workers[worker].used += one.milli_cpus;
        self.workers[worker].recent.extend(&one.inputs);
        let (share, build) = one.shares;
        let served = self.shares[build].time;
        self.shares[build].time += u64::from(one.milli_cpus);
        self.shares[share].clock = self.shares[share].clock.max(served);
        self.clock = self.clock.max(self.shares[share].time);
        self.shares[share].time += u64::from(one.milli_cpus);
        self.assigned.push((worker, number));
        self.running.push((worker, LeaseId(0), one));
    }

    fn fill(&mut self, at: usize) {
        loop {
            let worker = &self.workers[at];
            let fits = |one: &&Waiting| one.isa == worker.isa && one.milli_cpus <= worker.milli_cpus - worker.used;
            let is_first = |one: &&Waiting| {
                let same = |other: &&Waiting| (other.isa, other.milli_cpus) == (one.isa, one.milli_cpus);
                self.waiting.iter().filter(same).all(|other| self.ranks(one).0 <= self.ranks(other).0)
            };
            let next = self.waiting.iter().filter(fits).filter(is_first).min_by_key(|one| self.ranks(one).1);
            let Some(number) = next.map(|one| one.number) else { return };
            self.assign(at, number);
        }
    }

    fn place(&mut self, number: u64) {
        let one = self.waiting.iter().find(|one| one.number == number).expect("an action that waits");
        let fits = |worker: &Worker| worker.isa == one.isa && one.milli_cpus <= worker.milli_cpus - worker.used;
        let score = |worker: &Worker| {
            let known = one.inputs.iter().filter(|input| worker.recent.contains(input)).count();
            (known, u64::from(worker.milli_cpus - worker.used) * 1_000_000 / u64::from(worker.milli_cpus))
        };
        let open = self.workers.iter().enumerate().filter(|(_, worker)| fits(worker));
        let best = open.max_by_key(|(at, worker)| (score(worker), Reverse(*at))).map(|(at, _)| at);
        if let Some(at) = best {
            self.assign(at, number);
        }
    }

    /// What the scheduler is told; `None` if there is nothing of the kind.
    fn apply(&mut self, op: Op, number: u64) -> Option<Event> {
        match op {
            Op::Submit { isa, milli_cpus, share, build, priority, path_weight, inputs } => {
                let outer = self.open(None, share);
                let shares = (outer, self.open(Some(outer), build));
                let is_alone = !self.waiting.iter().any(|one| (one.isa, one.milli_cpus) == (isa, milli_cpus));
                let inner = inputs.clone();
                self.waiting.push(Waiting { number, isa, milli_cpus, shares, priority, path_weight, inputs: inner });
                if is_alone {
                    self.place(number);
                }
                let requirements = Requirements {
                    properties: properties(&[("ISA", ISAS[isa])]),
                    capacity: Capacity { milli_cpus, memory_bytes: GIB },
                    ..Requirements::default()
                };
                let (share, build) = (share.to_string(), build.to_string());
                let submission = submission(number);
                Some(Event::Submit(Submission {
                    requirements,
                    share,
                    build,
                    priority,
                    path_weight,
                    inputs,
                    ..submission
                }))
            }
            Op::Leave(which) => {
                let at = which.checked_rem(self.waiting.len())?;
                let one = self.waiting.remove(at);
                self.close(one.shares);
                Some(Event::Leave(WaiterId(one.number)))
            }
            Op::Join { isa, milli_cpus } => {
                let at = self.workers.len();
                self.workers.push(Worker { isa, milli_cpus, used: 0, recent: HashSet::new() });
                self.fill(at);
                let properties = properties(&[("ISA", ISAS[isa])]);
                Some(Event::WorkerJoined(WorkerOffer { properties, ..offer(&at.to_string(), milli_cpus) }))
            }
            Op::Finish(which) => {
                let at = which.checked_rem(self.running.len())?;
                let (worker, lease, one) = self.running.remove(at);
                self.workers[worker].used -= one.milli_cpus;
                self.close(one.shares);
                self.fill(worker);
                Some(finish(&worker.to_string(), lease))
            }
        }
    }

    /// Takes the leases of what was assigned as expected.
    fn compare(&mut self, effects: &[Effect]) {
        let found = assigned(effects);
        let wanted: Vec<(String, String)> =
            self.assigned.drain(..).map(|(worker, number)| (worker.to_string(), format!("a{number}"))).collect();
        let pairs: Vec<_> = found.iter().map(|(worker, _, key)| (worker.clone(), key.clone())).collect();
        assert_eq!(pairs, wanted);
        for (_, lease, key) in found {
            let one = self.running.iter_mut().find(|(.., one)| format!("a{}", one.number) == key);
            one.expect("an action that runs").1 = lease;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn everything_goes_where_and_when_a_look_at_all_of_it_would_send_it(ops in ops()) {
        let patient = Config { match_grace: u64::MAX, match_settle: u64::MAX, reserve_after: u64::MAX, ..Config::default() };
        let mut farm = Scheduler::new(patient, 0);
        let mut model = Model::default();
        for (number, op) in ops.into_iter().enumerate() {
            if let Some(event) = model.apply(op, number as u64) {
                model.compare(&farm.step(0, event));
            }
        }
    }
}
