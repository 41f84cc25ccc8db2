//! The scheduler alone, in memory: the number of assignments per second.

use std::collections::VecDeque;
use std::time::Instant;

use kiln_scheduler::{
    ActionKey, Capacity, Config, Effect, Event, LeaseId, Outcome, Requirements, Scheduler, Submission, WaiterId,
    WorkerId, WorkerOffer,
};

use crate::report::Figure;

const GIB: u64 = 1 << 30;

/// Queues `actions` (of 50 builds of 10 tenants, for two architectures, in three sizes, each with 20 input directories)
/// before `workers` with 4 CPUs join, and runs them all: the figure includes every assignment and every completion.
///
/// # Errors
/// If an action is never assigned.
pub fn assignments(actions: u64, workers: u64) -> anyhow::Result<Vec<Figure>> {
    let mut farm = Scheduler::new(Config { match_grace: u64::MAX, ..Config::default() }, 0);
    let isa = |number: u64| if number.is_multiple_of(4) { "aarch64" } else { "x86-64" };
    let properties = |number| [("ISA".to_owned(), isa(number).to_owned())].into();
    let queueing = Instant::now();
    for number in 0..actions {
        farm.step(
            0,
            Event::Submit(Submission {
                waiter: WaiterId(number),
                key: ActionKey(format!("{number:064}")),
                requirements: Requirements {
                    properties: properties(number),
                    capacity: Capacity { milli_cpus: [500, 1000, 2000][(number % 3) as usize], memory_bytes: GIB / 2 },
                    ..Requirements::default()
                },
                share: format!("tenant-{}", number % 10),
                build: format!("build-{}", number % 50),
                priority: 0,
                path_weight: number % 7,
                inputs: (0..20).map(|input| number / 100 * 20 + input).collect(),
                wait_limit: None,
                once: false,
            }),
        );
    }
    let queued = queueing.elapsed();
    let mut running: VecDeque<(WorkerId, LeaseId)> = VecDeque::new();
    let mut assigned = 0_u64;
    let mut take = |effects: Vec<Effect>, running: &mut VecDeque<(WorkerId, LeaseId)>| {
        for effect in effects {
            if let Effect::Assign { worker, lease, .. } = effect {
                assigned += 1;
                running.push_back((worker, lease));
            }
        }
    };
    let began = Instant::now();
    for number in 0..workers {
        let offer = WorkerOffer {
            worker: WorkerId(format!("worker-{number}")),
            properties: properties(number),
            demands: Default::default(),
            tenants: Default::default(),
            capacity: Capacity { milli_cpus: 4000, memory_bytes: 16 * GIB },
            draining: false,
            running: Vec::new(),
        };
        take(farm.step(1, Event::WorkerJoined(offer)), &mut running);
    }
    while let Some((worker, lease)) = running.pop_front() {
        take(farm.step(2, Event::Finished { worker, lease, outcome: Outcome::Completed }), &mut running);
    }
    let took = began.elapsed();
    anyhow::ensure!(assigned == actions, "{assigned} of {actions} actions were assigned");
    let rate = |took: std::time::Duration| actions as f64 / took.as_secs_f64();
    Ok(vec![
        Figure::new(format!("scheduler, {actions} actions on {workers} workers"), rate(took), "assignments/s")
            .wanted("at least 100,000"),
        Figure::new("scheduler, queueing before any worker is there", rate(queued), "actions/s"),
    ])
}
