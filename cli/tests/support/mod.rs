//! A farm in memory, whose builds a test scripts, and the real `kiln` against it.

#![allow(dead_code, clippy::unwrap_used)]

mod services;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1;
use kiln_proto::v1::event::Event;
use kiln_trees::tree::{Entry, Tree};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

pub const F: DigestFunction = DigestFunction::Sha256;

/// The farm's state. Shared by all services.
pub struct State {
    pub blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    pub submitted: Mutex<Vec<v1::SubmitRequest>>,
    pub refuse: Mutex<Option<tonic::Status>>,
    pub script: Mutex<Vec<Event>>,
    pub end_on_cancel: Mutex<bool>,
    pub build: Mutex<v1::Build>,
    pub artifacts: Mutex<Vec<v1::Artifact>>,
    pub workers: Mutex<Vec<v1::Worker>>,
    pub events: watch::Sender<Vec<v1::Event>>,
    pub cancelled: watch::Sender<u32>,
    /// How often it was asked to build.
    pub asked: watch::Sender<u32>,
    /// Whether it answers that.
    pub answers: watch::Sender<bool>,
    /// Counts how often event streams were cut.
    pub cut: watch::Sender<u32>,
    /// Counts the calls to Watch, with the offset of the last.
    pub watched: watch::Sender<(u32, u64)>,
}

/// A running farm.
pub struct Farm {
    pub url: String,
    pub state: Arc<State>,
    /// A cache directory for this test.
    pub cache: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Farm {
    pub async fn start() -> Self {
        let state = Arc::new(State {
            blobs: Mutex::default(),
            submitted: Mutex::default(),
            refuse: Mutex::default(),
            script: Mutex::default(),
            end_on_cancel: Mutex::new(true),
            build: Mutex::new(v1::Build { id: "b-1".into(), ..Default::default() }),
            artifacts: Mutex::default(),
            workers: Mutex::default(),
            events: watch::channel(Vec::new()).0,
            cancelled: watch::channel(0).0,
            asked: watch::channel(0).0,
            answers: watch::channel(true).0,
            cut: watch::channel(0).0,
            watched: watch::channel((0, 0)).0,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(services::serve(state.clone(), listener));
        Self { url, state, cache: tempfile::tempdir().unwrap(), server }
    }

    /// The farm disappears, with its connections.
    pub fn stop(&self) {
        self.server.abort();
        self.state.cut.send_modify(|count| *count += 1);
    }

    /// Sets the events of a build that is submitted later.
    pub fn script(&self, events: Vec<Event>) {
        *self.state.script.lock() = events;
    }

    /// Adds an event to the running build.
    pub fn emit(&self, event: Event) {
        self.state.emit(event);
    }

    /// Puts a blob into the store.
    pub fn put(&self, data: &[u8]) -> Digest {
        let digest = F.digest(data);
        self.state.blobs.lock().insert(digest, data.to_vec());
        digest
    }

    /// Puts a tree into the store.
    pub fn put_tree(&self, entries: Vec<(&str, Entry)>) -> Digest {
        let mut tree = Tree::default();
        for (path, entry) in entries {
            tree.insert(path, entry).unwrap();
        }
        tree.encode(F, &mut |encoded| {
            self.state.blobs.lock().insert(encoded.digest, encoded.data);
        })
    }

    pub fn file(&self, data: &[u8], executable: bool) -> Entry {
        Entry::file(self.put(data), executable)
    }

    /// An artifact of one executable file.
    pub fn artifact(&self, name: &str, platform: &str, data: &[u8]) -> v1::Artifact {
        let root = self.put_tree(vec![(name, self.file(data, true))]);
        self.artifact_of(name, platform, root, F.digest(data))
    }

    pub fn artifact_of(&self, name: &str, platform: &str, root: Digest, digest: Digest) -> v1::Artifact {
        v1::Artifact {
            id: format!("{name}/1.0/{}/{}", platform.replace('/', "-"), &digest.hex()[..12]),
            name: name.into(),
            version: "1.0".into(),
            platform: platform.into(),
            target: platform.replace('/', "-"),
            kind: "binary".into(),
            root: Some(root.to_wire()),
            digest_function: F.to_wire(),
            digest: Some(digest.to_wire()),
            size_bytes: digest.size,
            provenance: Some(self.put(b"{\"_type\":\"x\"}").to_wire()),
            build: "b-1".into(),
            ..Default::default()
        }
    }

    /// `kiln` with these arguments, using this farm.
    pub fn kiln(&self, dir: &Path, arguments: &[&str]) -> Command {
        let mut command = kiln(dir, self.cache.path(), arguments);
        command.env("KILN_FARM", &self.url);
        command
    }

    /// Runs `kiln` to completion.
    pub async fn run(&self, dir: &Path, arguments: &[&str]) -> Ran {
        Ran::from(self.kiln(dir, arguments).output().await.unwrap())
    }
}

impl State {
    pub fn emit(&self, event: Event) {
        self.events.send_modify(|events| {
            let offset = events.len() as u64;
            events.push(v1::Event { offset, at: None, event: Some(event) });
        });
    }
}

/// `kiln` without a farm.
pub fn kiln(dir: &Path, cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command
        .args(arguments)
        .current_dir(dir)
        .env("XDG_CACHE_HOME", cache)
        .env("USER", "tester")
        .env_remove("KILN_FARM")
        .env_remove("KILN_LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The results of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Standard output: one JSON object per line.
    pub fn objects(&self) -> Vec<serde_json::Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("expected JSON, found: {line}")))
            .collect()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A running `kiln`, and the lines of its standard output.
pub struct Running {
    pub child: Child,
    pub lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for an object of this type.
    pub async fn until(&mut self, kind: &str) -> serde_json::Value {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            let object: serde_json::Value = serde_json::from_str(&line).unwrap();
            if object["type"] == kind {
                return object;
            }
        }
        panic!("the events ended without `{kind}`");
    }

    pub fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    /// Its exit code and standard error.
    pub async fn end(self) -> Ran {
        let output = self.child.wait_with_output().await.unwrap();
        Ran::from(output)
    }
}

pub fn step(name: &str) -> Option<v1::StepRef> {
    step_on(name, "linux/amd64")
}

pub fn step_on(name: &str, platform: &str) -> Option<v1::StepRef> {
    let target = platform.replace('/', "-");
    Some(v1::StepRef { step: name.into(), platform: platform.into(), target, shard: 0, shards: 1 })
}

pub fn started(steps: &[Option<v1::StepRef>]) -> Event {
    let steps = steps.iter().map(|step| v1::PlannedStep { step: step.clone(), ..Default::default() }).collect();
    Event::BuildStarted(v1::BuildStarted {
        build: "b-1".into(),
        project: "shop".into(),
        version: "1.0".into(),
        steps,
        resumed: false,
    })
}

pub fn runs(step: Option<v1::StepRef>) -> Event {
    Event::StepStarted(v1::StepStarted { step, worker: "one".into(), expected_ms: 0 })
}

pub fn log(step: Option<v1::StepRef>, data: &[u8]) -> Event {
    Event::Log(v1::Log { step, stream: "stdout".into(), data: data.to_vec().into(), skipped_bytes: 0 })
}

pub fn result(step: Option<v1::StepRef>, cache: v1::step_finished::Cache, exit_code: i32) -> v1::StepFinished {
    let hit = cache == v1::step_finished::Cache::Hit;
    v1::StepFinished {
        step,
        cache: cache.into(),
        exit_code,
        duration_ms: if hit { 3 } else { 1500 },
        worker: if hit { String::new() } else { "one".into() },
        ok: exit_code == 0,
        ..Default::default()
    }
}

pub fn finished(status: v1::Status, message: &str) -> Event {
    let (build, message) = ("b-1".into(), message.into());
    Event::BuildFinished(v1::BuildFinished { build, status: status.into(), duration_ms: 2000, message })
}

/// A small source tree.
pub fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    std::fs::write(dir.path().join("src/main.c"), "int main(void) { return 0; }\n").unwrap();
    std::fs::write(dir.path().join("Makefile"), "shop: src/main.c\n\tcc -o shop src/main.c\n").unwrap();
    dir
}
