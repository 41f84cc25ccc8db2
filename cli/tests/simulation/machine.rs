//! A worker whose commands take simulated time, and whose outputs are a function of the command and its inputs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_proto::v1;
use kiln_worker::executor::samples::Samples;
use kiln_worker::executor::{Chunk, Error, Executor, Exit, Finished, Job, OutputTree, Stream};
use kiln_worker::inputs::{self, Inputs};
use kiln_worker::link::{self, Identity};
use kiln_worker::runner::Runner;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::network::dial;

/// Maximum duration of a command.
const LONGEST_MS: u64 = 9_000;

/// How many commands of all workers ran to completion.
pub type Runs = Arc<Mutex<usize>>;

/// The output of a command whose text is `run`, given what its input `from` contains.
pub fn made(run: &str, from: &str) -> String {
    format!("{run}({})", from.trim_end())
}

#[derive(Debug)]
struct Commands {
    seed: u64,
    runs: Runs,
}

impl Commands {
    /// Derived from the seed and the command, so that it is the same on every worker.
    fn time(&self, run: &str) -> Duration {
        let hash: [u8; 32] = Sha256::new().chain_update(self.seed.to_le_bytes()).chain_update(run).finalize().into();
        let number = u64::from_le_bytes(hash[..8].try_into().unwrap_or_default());
        Duration::from_millis(number % LONGEST_MS)
    }
}

/// A file of the input tree, which consists of stacked layers.
fn input(layers: &[PathBuf], name: &str) -> String {
    layers.iter().rev().find_map(|layer| std::fs::read_to_string(layer.join(name)).ok()).unwrap_or_default()
}

#[async_trait::async_trait]
impl Executor for Commands {
    async fn run(&self, job: Job, output: mpsc::Sender<Chunk>, cancel: CancellationToken) -> Result<Finished, Error> {
        let command = job.arguments.last().cloned().unwrap_or_default();
        // `make FROM TO WORD`
        let words: Vec<&str> = command.split_whitespace().collect();
        let [_, from, to, ..] = words[..] else { return Err(Error::Action(format!("cannot simulate `{command}`"))) };
        let data = format!("{command}\n").into_bytes().into();
        let _ = output.send(Chunk { stream: Stream::Stdout, data }).await;
        let time = self.time(&command);
        let exit = tokio::select! {
            () = tokio::time::sleep(time) => Exit::Code(0),
            () = cancel.cancelled() => Exit::Cancelled,
        };
        let failed = |error: std::io::Error| Error::Worker(error.to_string());
        let directory = tempfile::tempdir().map_err(failed)?;
        std::fs::write(directory.path().join(to), made(&command, &input(&job.layers, from))).map_err(failed)?;
        if exit == Exit::Code(0) {
            *self.runs.lock().unwrap() += 1;
        }
        let tree = OutputTree::new(directory.path().to_owned(), directory);
        let none = Duration::ZERO;
        let samples = Samples::default();
        let (peak_memory_bytes, accesses) = (0, None);
        let conditions = Default::default();
        Ok(Finished {
            exit,
            wall: time,
            user_cpu: none,
            system_cpu: none,
            peak_memory_bytes,
            samples,
            accesses,
            conditions,
            tree,
        })
    }
}

fn environment() -> v1::Environment {
    v1::Environment {
        fingerprint: "simulated".to_owned(),
        isa: "x86-64".to_owned(),
        os: "debian:12".to_owned(),
        libc: "glibc:2.36".to_owned(),
        cpu_level: "x86-64-v1".to_owned(),
        path: "/usr/bin:/bin".to_owned(),
        executors: vec!["sandbox".to_owned()],
        ..Default::default()
    }
}

/// Works until the simulation crashes its host. `state` is the host's disk, which outlives that.
pub async fn work(name: String, state: PathBuf, seed: u64, runs: Runs) -> turmoil::Result {
    let logs = state.join("logs");
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs)?;
    let inputs = Inputs::open(inputs::Config { directory: disk(&state), max_bytes: 1 << 30, owner: None })?;
    let executor = Arc::new(Commands { seed, runs });
    let runner = Arc::new(Runner::new(name.clone(), inputs, executor, logs));
    let capacity = v1::Capacity { milli_cpus: 2_000, memory_bytes: 4 << 30 };
    let (_says, identity) = watch::channel(Identity {
        name,
        environment: environment(),
        capacity,
        session: rand::random::<[u8; 16]>().to_vec(),
        tenants: Vec::new(),
    });
    let forever = CancellationToken::new();
    let _ = link::keep(&dial(), identity, runner, forever, Duration::from_secs(60)).await;
    Ok(())
}

fn disk(state: &Path) -> PathBuf {
    state.join("inputs")
}
