//! Builds on a farm of real processes and a real Redis under faults: each ends correctly or reports that the farm
//! failed, and nothing is left behind.
//!
//! The seed is printed, and `KILN_CHAOS_SEED` gives the same faults in the same order again. The long form:
//! `KILN_CHAOS_BUILDS=200 cargo test -p kiln-cli --test chaos soak -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

#[path = "chaos/leftovers.rs"]
mod leftovers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln_harness::faults::{self, Clock, Dice, Link, SmallDisk};
use kiln_harness::proxy::Proxy;
use kiln_harness::redis::Redis;
use kiln_harness::{Farm, cannot_run, caretaker, project, until, until_none};
use nix::sys::signal::Signal;

/// Number of concurrent builds.
const CLIENTS: usize = 3;
const WORKERS: [&str; 5] = ["plain", "other", "linked", "small", "skewed"];

/// A project whose artifact is known in advance.
fn tree(number: usize) -> tempfile::TempDir {
    let config = r#"
name = "chaos"
version = "1"
[steps.deps]
inputs = ["in.txt"]
run = "sleep 0.2; read word < in.txt; for line in $(seq 5000); do echo $line $word; done > layer"
outputs = ["layer"]
[steps.compile]
needs = ["deps"]
run = "sleep 0.2; sed 's/^/made /' layer > made"
outputs = ["made"]
[artifacts.chaos]
from = "compile"
files = ["made"]
kind = "binary"
check_elf = false
"#;
    project(&[("kiln.toml", config), ("in.txt", &format!("word-{number}\n"))])
}

fn expected(number: usize) -> String {
    (1..=5000).map(|line| format!("made {line} word-{number}\n")).collect()
}

/// The workers' machines, each with its own fault.
struct Machines {
    farm: Farm,
    redis: Redis,
    link: Link,
    proxy: Proxy,
    disk: SmallDisk,
    clock: Clock,
    temporary: tempfile::TempDir,
}

impl Machines {
    fn start() -> Self {
        let temporary = caretaker::directory();
        let redis = Redis::start();
        let variables = vec![("TMPDIR".to_owned(), temporary.path().display().to_string())];
        let farm = Farm::with_variables(variables, &["--redis", &redis.url()], &[WORKERS[0]]);
        let link = Link::new();
        let proxy = Proxy::at(&format!("{}:0", link.address), &farm.url);
        let disk = SmallDisk::at(&farm.dir.path().join("small"));
        let clock = Clock::at(farm.dir.path().join("clock"));
        let machines = Self { farm, redis, link, proxy, disk, clock, temporary };
        // The first one probed the machine's tools for all of them.
        WORKERS[1..].iter().for_each(|name| machines.start_worker(name));
        WORKERS.iter().for_each(|name| machines.farm.wait_for_worker(name));
        machines
    }

    fn start_worker(&self, name: &str) {
        let enter = self.link.enter();
        let enter: Vec<&str> = enter.iter().map(String::as_str).collect();
        let mut variables = vec![("TMPDIR", self.temporary.path().to_str().unwrap())];
        let (before, url) = if name == "linked" { (&enter[..], &self.proxy.url) } else { (&[][..], &self.farm.url) };
        if name == "skewed" {
            variables.extend(self.clock.variables());
        }
        self.farm.start_worker_behind(before, url, name, &["--grace", "30s"], &variables);
    }

    /// Starts again what ended, as a unit does. A worker that begins while its disk is full says so and ends; none ends for another reason.
    fn supervise(&self) {
        for name in WORKERS.iter().filter(|name| self.farm.has_ended(name)) {
            let log = self.farm.log(name);
            let last = log.lines().last().unwrap_or_default();
            assert!(*name == "small" && last.contains("No space left on device"), "`{name}` ended: {last}");
            self.start_worker(name);
        }
    }

    /// Causes one fault and undoes it; returns its description.
    fn fault(&mut self, dice: &mut Dice) -> &'static str {
        let worker = WORKERS[dice.roll(WORKERS.len() as u64) as usize];
        let pause = Duration::from_millis(dice.roll(2500));
        let kind = dice.roll(8);
        let clock = [-7200, -1, 0, 90, 86_400][dice.roll(5) as usize];
        let wait = || std::thread::sleep(pause);
        match kind {
            0 | 1 => {
                self.farm.kill_worker(worker);
                wait();
                self.start_worker(worker);
                "kill -9 of a worker"
            }
            2 => {
                self.farm.restart_coordinator();
                wait();
                "kill -9 of the coordinator"
            }
            3 => {
                self.redis.kill();
                wait();
                self.redis.restart();
                "kill -9 of Redis"
            }
            4 => {
                self.link.set("down");
                wait();
                self.link.set("up");
                "link down and up"
            }
            5 => {
                self.farm.signal_worker(worker, Signal::SIGSTOP);
                wait();
                self.farm.signal_worker(worker, Signal::SIGCONT);
                "hung worker"
            }
            6 => {
                self.disk.fill();
                wait();
                self.disk.empty();
                "full disk"
            }
            _ => {
                self.clock.jump(clock);
                "clock jump"
            }
        }
    }
}

/// How the builds ended.
#[derive(Default)]
struct Ends {
    well: Vec<usize>,
    /// With the farm's error and its message.
    farm: BTreeMap<usize, String>,
    wrong: Vec<String>,
}

fn check(number: usize, built: &kiln_harness::Built, dir: &Path, ends: &mut Ends) {
    let made = || kiln_harness::find(&dir.join("kiln-out"), "made").and_then(|path| std::fs::read_to_string(path).ok());
    match built.0.code {
        0 if made().is_some_and(|made| made == expected(number)) => ends.well.push(number),
        0 => ends.wrong.push(format!("build {number} has another artifact: {}", built.0.out)),
        3 if !built.0.err.is_empty() || !built.0.out.is_empty() => {
            ends.farm.insert(number, format!("{} {}", built.0.out.lines().last().unwrap_or_default(), built.0.err));
        }
        code => ends.wrong.push(format!("build {number} ended with {code}: {}\n{}", built.0.out, built.0.err)),
    }
}

fn chaos(builds: usize) {
    if !nix::unistd::geteuid().is_root() {
        return cannot_run("links and disks are made by root");
    }
    if !kiln_harness::redis::is_installed() || !Clock::is_installed() {
        return cannot_run("redis-server and libfaketime must be installed");
    }
    let fresh = || std::process::id().into();
    let seed = std::env::var("KILN_CHAOS_SEED").ok().map_or_else(fresh, |seed| seed.parse().unwrap());
    eprintln!("chaos: {builds} builds, KILN_CHAOS_SEED={seed}");
    let began = Instant::now();
    let mut dice = Dice(seed);
    let mut machines = Machines::start();
    let (url, cache) = (machines.farm.url.clone(), machines.farm.dir.path().join("cache"));
    let run = |number: usize, ends: &Mutex<Ends>| {
        let dir = tree(number);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["build", "--progress", "json"]).current_dir(dir.path()).env("KILN_FARM", &url);
        command.env("XDG_CACHE_HOME", &cache).env("USER", "tester");
        let built = kiln_harness::Built(kiln_harness::Ran::from(command));
        check(number, &built, dir.path(), &mut ends.lock().unwrap());
    };
    let ends = Mutex::new(Ends::default());
    let pause = Duration::from_millis(500);
    let build = |number: usize| run(number, &ends);
    let faults = faults::storm(CLIENTS, builds, build, &mut dice, pause, |dice| machines.fault(dice));
    let elapsed = began.elapsed();

    // Once the faults are over, builds that the farm failed succeed, and every worker is back.
    let calm = Mutex::new(Ends::default());
    machines.supervise();
    WORKERS.iter().for_each(|name| machines.farm.wait_for_worker(name));
    let ends = ends.into_inner().unwrap();
    ends.farm.keys().for_each(|number| run(*number, &calm));
    let calm = calm.into_inner().unwrap();
    eprintln!(
        "chaos: seed {seed}: {} builds succeeded, {} ended with the farm's error, in {elapsed:.1?}; faults: {faults:?}",
        ends.well.len(),
        ends.farm.len()
    );
    ends.farm.iter().for_each(|(number, words)| eprintln!("chaos: build {number}: {words}"));
    let told = || WORKERS.iter().chain(&["coordinator"]).map(|name| machines.farm.log(name)).collect::<String>();
    let wrong: Vec<&String> = ends.wrong.iter().chain(&calm.wrong).chain(calm.farm.values()).collect();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}\n{}", told());

    until_none("temporary file", || leftovers::files(&machines.farm, &machines.temporary));
    for name in WORKERS {
        assert_eq!(machines.farm.stop_worker(name), Some(0), "expected `{name}` to leave in order");
    }
    let (dir, pids) = (machines.farm.dir.path().to_owned(), machines.farm.pids());
    let left = leftovers::groups(&pids);
    assert!(left.is_empty(), "expected no control group, found {left:?}");
    // The small disk is mounted below the farm's directory, which must not be removed before it.
    let Machines { farm, disk, .. } = machines;
    drop(disk);
    drop(farm);
    let left = leftovers::processes_and_mounts(&dir);
    assert!(left.is_empty(), "expected no process and no mount, found {left:?}");
    assert!(!dir.exists(), "expected the farm's directory to be gone");
}

#[test]
fn builds_end_right_and_nothing_is_left_though_everything_fails_at_some_time() {
    chaos(24);
}

#[test]
#[ignore = "takes minutes; the page's first lines say how it is run"]
fn soak() {
    let builds = std::env::var("KILN_CHAOS_BUILDS").ok().map_or(200, |builds| builds.parse().unwrap());
    chaos(builds);
}

#[test]
fn what_is_sent_or_fetched_when_the_connection_breaks_is_sent_or_fetched_all_the_same() {
    let farm = Farm::start(&["one"]);
    let way = Proxy::to(&farm.url);
    let mut noise = Dice(7);
    let data: Vec<u8> = (0..6 << 20).map(|_| noise.roll(256) as u8).collect();
    let config = "name = \"large\"\n[steps.copy]\nrun = \"cat in > out\"\noutputs = [\"out\"]\n[artifacts.large]\nfrom = \"copy\"\n\
                  files = [\"out\"]\nkind = \"binary\"\ncheck_elf = false\n";
    let dir = project(&[("kiln.toml", config)]);
    std::fs::write(dir.path().join("in"), &data).unwrap();
    let through = |arguments: &[&str]| {
        let mut command = farm.command(arguments);
        command.current_dir(dir.path()).env("KILN_FARM", &way.url);
        kiln_harness::Ran::from(command)
    };
    way.break_after(3 << 20);
    let built = kiln_harness::Built(through(&["build", "--progress", "json", "--output", "built"])).well();
    assert!(!way.is_to_break(), "expected the upload of the sources to be cut off");
    let made = kiln_harness::find(&dir.path().join("built"), "out").unwrap();
    assert!(std::fs::read(made).unwrap() == data, "expected the artifact to be what was sent");
    way.break_after(3 << 20);
    let id = built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    let fetched = through(&["fetch", &id, "--output", "fetched"]);
    assert!(fetched.code == 0 && !way.is_to_break(), "expected it to be fetched after it was cut off: {fetched:?}");
    let fetched = kiln_harness::find(&dir.path().join("fetched"), "out").unwrap();
    assert!(std::fs::read(fetched).unwrap() == data, "expected the whole artifact");
}

#[test]
fn every_process_is_replaced_under_load_and_no_build_fails() {
    let farm = Farm::start(&["one", "two"]);
    let (done, ends) = (AtomicBool::new(false), Mutex::new(Ends::default()));
    let next = AtomicUsize::new(1_000_000);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let dir = tree(number);
                    let built = farm.build(dir.path(), &[]);
                    check(number, &built, dir.path(), &mut ends.lock().unwrap());
                }
            });
        }
        let roll = || {
            for name in ["one", "two"] {
                until("builds to run", || (!ends.lock().unwrap().well.is_empty()).then_some(()));
                assert_eq!(farm.stop_worker(name), Some(0), "{}", farm.log(name));
                farm.start_worker(name);
                farm.wait_for_worker(name);
            }
            assert_eq!(farm.replace_coordinator(), Some(0), "{}", farm.log("coordinator"));
            ["one", "two"].iter().for_each(|name| farm.wait_for_worker(name));
            let before = ends.lock().unwrap().well.len();
            until("builds to continue", || (ends.lock().unwrap().well.len() >= before + CLIENTS).then_some(()));
        };
        let rolled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(roll));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = rolled {
            std::panic::resume_unwind(panic);
        }
    });
    let ends = ends.into_inner().unwrap();
    assert!(ends.farm.is_empty() && ends.wrong.is_empty(), "{:#?} {:#?}", ends.farm, ends.wrong);
}
