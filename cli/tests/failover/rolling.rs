//! A new version of every process, one after the other, while builds and Remote Execution actions run: nobody notices.
//!
//! The long form: `KILN_FAILOVER_ROLLS=5 cargo test -p kiln-cli --test failover rolling::long -- --ignored --nocapture`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiln_harness::remote::{self, Caller};
use kiln_harness::replicas::Replicas;
use kiln_harness::until;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_proto::transfer::Blob;
use prost::Message;
use tonic::{Code, Status};

use crate::{tree, wrong};

const COORDINATORS: [&str; 3] = ["ada", "ben", "cyd"];
const WORKERS: [&str; 3] = ["one", "two", "three"];
const CLIENTS: usize = 2;

/// Errors after which Bazel calls again, how often, and the pause before the first of these attempts; each is twice the one before.
const TRANSIENT: [Code; 7] = [
    Code::Cancelled,
    Code::Unknown,
    Code::DeadlineExceeded,
    Code::ResourceExhausted,
    Code::Aborted,
    Code::Internal,
    Code::Unavailable,
];
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Calls until that succeeds, as often as Bazel does before it tells its user of an error.
async fn patiently<T, E: Into<Status>>(call: impl AsyncFn() -> Result<T, E>) -> Result<T, Status> {
    let mut attempt = 0;
    loop {
        match call().await.map_err(Into::into) {
            Err(status) if TRANSIENT.contains(&status.code()) && attempt < ATTEMPTS => {
                tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

async fn executed(caller: &Caller, action: &Digest) -> Result<reapi::ExecuteResponse, Status> {
    let mut states = caller.start(action, false).await?;
    while let Some(operation) = states.message().await? {
        if operation.done {
            return Ok(remote::response(&operation));
        }
    }
    Err(Status::unavailable("the stream of states ended early"))
}

/// Runs an action that nobody ran before, and answers what it printed.
async fn printed(caller: &Caller, word: &str) -> Result<String, Status> {
    let function = caller.function;
    let command = remote::shell(&format!("sleep 0.5; echo {word}"), &[]).encode_to_vec();
    let (root, action_of) =
        (reapi::Directory::default().encode_to_vec(), |command: &[u8], root: &[u8]| reapi::Action {
            command_digest: Some(function.digest(command).to_wire()),
            input_root_digest: Some(function.digest(root).to_wire()),
            ..Default::default()
        });
    let action = action_of(&command, &root).encode_to_vec();
    let digest = function.digest(&action);
    let blobs = [command, root, action].map(|data| (function.digest(&data), Bytes::from(data)));
    patiently(async || {
        let blobs = blobs.iter().map(|(digest, data)| (*digest, Blob::Bytes(data.clone()))).collect();
        caller.blobs.upload(blobs).await.map(drop).map_err(|error| Status::unavailable(error.to_string()))
    })
    .await?;
    let response = patiently(async || executed(caller, &digest).await).await?;
    let result = response.result.as_ref().filter(|result| result.exit_code == 0);
    let result = result.ok_or_else(|| Status::data_loss(format!("expected it to succeed: {response:?}")))?;
    let Some(stdout) = &result.stdout_digest else {
        return Ok(String::from_utf8_lossy(&result.stdout_raw).into_owned());
    };
    let stdout = Digest::from_wire(function, stdout).map_err(|error| Status::data_loss(error.to_string()))?;
    let text =
        patiently(async || caller.blobs.get(&stdout).await.map_err(|error| Status::unavailable(error.to_string())));
    Ok(String::from_utf8_lossy(&text.await?).into_owned())
}

/// What is wrong with the result of an action that nobody ran before.
async fn problem_of_an_action(caller: &Caller) -> Option<String> {
    let word = remote::salt();
    match printed(caller, &word).await {
        Ok(text) => (text != format!("{word}\n")).then(|| format!("expected an action to print {word}, found {text}")),
        Err(status) => Some(format!("a client of Remote Execution was told {status:?}")),
    }
}

/// What the clients have seen so far.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    builds: AtomicUsize,
    actions: AtomicUsize,
    problems: Mutex<Vec<String>>,
}

impl Load {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn ended(&self, what: &AtomicUsize, problem: Option<String>) {
        self.problems.lock().unwrap().extend(problem);
        what.fetch_add(1, Ordering::Relaxed);
    }

    fn build(&self, farm: &Replicas, client: usize) {
        for number in 0.. {
            if self.is_over() {
                return;
            }
            let word = format!("rolling-{client}-{number}");
            let dir = tree(&word, 4);
            let built = farm.build(dir.path(), &[]);
            self.ended(&self.builds, wrong(&built, dir.path(), &word));
        }
    }

    /// Over one connection, as long as there is one.
    fn execute(&self, farm: &Replicas) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let caller = remote::caller_of(&farm.url, DigestFunction::Sha256).await;
            while !self.is_over() {
                let problem = problem_of_an_action(&caller).await;
                self.ended(&self.actions, problem);
            }
        });
    }

    /// Waits until whatever begins now has ended at each client.
    fn goes_on(&self) {
        for ended in [&self.builds, &self.actions] {
            let before = ended.load(Ordering::Relaxed);
            until("the clients to go on", || (ended.load(Ordering::Relaxed) > before + 2 * CLIENTS).then_some(()));
        }
        let problems = self.problems.lock().unwrap();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

/// Ends the load, also when something panics: its clients would go on for ever.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Replaces each process once: first the coordinators, as one should, or the workers.
fn roll(farm: &Replicas, load: &Load, workers_first: bool) {
    let workers = || {
        for name in WORKERS {
            assert_eq!(farm.stop_worker(name), Some(0), "{}", farm.log(name));
            farm.start_worker(name);
            farm.wait_for_worker(name);
            load.goes_on();
        }
    };
    if workers_first {
        workers();
    }
    for name in COORDINATORS {
        assert_eq!(farm.stop_coordinator(name), Some(0), "{}", farm.log(name));
        farm.start_coordinator(name);
        until("it to be ready", || farm.metrics(name));
        load.goes_on();
    }
    if !workers_first {
        workers();
    }
    farm.restart_front();
    load.goes_on();
    let mut redis = farm.redis.lock().unwrap();
    redis.stop();
    redis.restart();
    drop(redis);
    load.goes_on();
    farm.s3.down();
    farm.s3.up();
    load.goes_on();
}

fn rolls(times: usize) {
    let Some(farm) = Replicas::on_valkey(&COORDINATORS, &WORKERS) else { return };
    let commit = farm.upgrade();
    let load = Load::default();
    std::thread::scope(|scope| {
        let over = Over(&load);
        let (farm, load) = (&farm, &load);
        for number in 0..CLIENTS {
            scope.spawn(move || load.build(farm, number));
            scope.spawn(move || load.execute(farm));
        }
        load.goes_on();
        for time in 0..times {
            roll(farm, load, time % 2 == 1);
        }
        drop(over);
    });
    let problems = load.problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{problems:#?}");
    let (builds, actions) = (load.builds.into_inner(), load.actions.into_inner());
    eprintln!("failover: every process was replaced, {times} times: {builds} builds and {actions} actions ended well");
    // The first of them to be replaced met the others' version.
    assert!(farm.log(COORDINATORS[0]).contains(&commit), "expected two versions at the same time");
}

#[test]
fn a_new_version_of_every_process_fails_no_build_and_no_action() {
    rolls(1);
}

mod long {
    #[test]
    #[ignore = "takes a quarter of an hour; the page's first lines say how it is run"]
    fn every_process_is_replaced_again_and_again() {
        super::rolls(std::env::var("KILN_FAILOVER_ROLLS").ok().map_or(5, |rolls| rolls.parse().unwrap()));
    }
}
