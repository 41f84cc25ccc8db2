//! Builds through HAProxy while coordinators, workers and Redis are killed, stopped and cut off.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln_harness::faults::{self, Dice};
use kiln_harness::replicas::Replicas;
use kiln_harness::until;
use nix::sys::signal::Signal;

use crate::{tree, wrong};

const COORDINATORS: [&str; 3] = ["ada", "ben", "cyd"];
const WORKERS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
const CLIENTS: usize = 3;

/// Causes one fault and undoes it; returns its description.
fn fault(farm: &Replicas, dice: &mut Dice) -> &'static str {
    let worker = WORKERS[dice.roll(WORKERS.len() as u64) as usize];
    let any = COORDINATORS[dice.roll(COORDINATORS.len() as u64) as usize].to_owned();
    let leader = farm.leader().unwrap_or_else(|| any.clone());
    let pause = Duration::from_millis(500 + dice.roll(9_000));
    let wait = || std::thread::sleep(pause);
    match dice.roll(10) {
        0 | 1 => {
            farm.kill_coordinator(&leader);
            wait();
            farm.start_coordinator(&leader);
            "kill -9 of the leader"
        }
        2 => {
            farm.signal_coordinator(&leader, Signal::SIGSTOP);
            wait();
            farm.signal_coordinator(&leader, Signal::SIGCONT);
            "stopped leader"
        }
        3 | 4 => {
            farm.cut(&leader, true);
            wait();
            farm.cut(&leader, false);
            "leader cut off from Redis"
        }
        5 => {
            farm.stop_coordinator(&leader);
            farm.start_coordinator(&leader);
            "replaced leader"
        }
        6 => {
            farm.kill_coordinator(&any);
            wait();
            farm.start_coordinator(&any);
            "kill -9 of a coordinator"
        }
        7 => {
            farm.redis.lock().unwrap().kill();
            std::thread::sleep(pause / 4);
            farm.redis.lock().unwrap().restart();
            "kill -9 of Redis"
        }
        8 => {
            farm.redis.lock().unwrap().signal("STOP");
            std::thread::sleep(pause / 2);
            farm.redis.lock().unwrap().signal("CONT");
            "stopped Redis"
        }
        _ => {
            farm.kill_worker(worker);
            wait();
            farm.start_worker(worker);
            "kill -9 of a worker"
        }
    }
}

fn storm(builds: usize) {
    let fresh = || std::process::id().into();
    let seed = std::env::var("KILN_FAILOVER_SEED").ok().map_or_else(fresh, |seed| seed.parse().unwrap());
    eprintln!("failover: {builds} builds, KILN_FAILOVER_SEED={seed}");
    let Some(farm) = Replicas::start(&COORDINATORS, &WORKERS) else { return };
    let mut dice = Dice(seed);
    let (ended, problems) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let began = Instant::now();
    let run = |number: usize| {
        let word = format!("storm-{number}");
        let dir = tree(&word, 4);
        let built = farm.build(dir.path(), &[]);
        problems.lock().unwrap().extend(wrong(&built, dir.path(), &word));
        ended.fetch_add(1, Ordering::Relaxed);
    };
    let faults = faults::storm(CLIENTS, builds, run, &mut dice, Duration::from_secs(2), |dice| fault(&farm, dice));
    let elapsed = began.elapsed();
    let problems = problems.into_inner().unwrap();
    eprintln!(
        "failover: seed {seed}: {} builds, {} not as they should be, in {elapsed:.1?}; faults: {faults:?}",
        ended.into_inner(),
        problems.len()
    );
    let told = || COORDINATORS.iter().map(|name| farm.log(name)).collect::<String>();
    assert!(problems.is_empty(), "seed {seed}: {problems:#?}\n{}", told());
    // Nothing is left over: no build is unfinished, and no worker runs anything.
    until("everything to be over", || {
        let builds: serde_json::Value =
            serde_json::from_str(&farm.kiln(&["builds", "--json", "--limit", "1000"]).out).ok()?;
        let unfinished =
            builds.as_array()?.iter().any(|build| build["status"] == "running" || build["status"] == "queued");
        let workers: serde_json::Value = serde_json::from_str(&farm.kiln(&["workers", "--json"]).out).ok()?;
        let busy = workers.as_array()?.iter().any(|worker| worker["running"] != 0);
        (!unfinished && !busy).then_some(())
    });
}

#[test]
fn no_build_is_lost_or_wrong_whoever_is_lost_meanwhile() {
    storm(12);
}

#[test]
#[ignore = "takes an hour; the page's first lines say how it is run"]
fn soak() {
    storm(std::env::var("KILN_FAILOVER_BUILDS").ok().map_or(300, |builds| builds.parse().unwrap()));
}
