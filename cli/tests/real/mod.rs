//! A farm of real processes on this machine, and the real `kiln` against it.

#![allow(dead_code, clippy::unwrap_used)]

pub mod arm64;
pub mod caretaker;
pub mod docker;
pub mod faults;
pub mod guarded;
pub mod proxy;
pub mod remote;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test fails with what it waited for.
const DEADLINE: Duration = Duration::from_secs(120);
/// A command that takes longer is ended, so that a hang fails one test rather than blocking all.
const HANGS: Duration = Duration::from_secs(900);

/// Reports that a test could not run, or fails if all tests must run.
pub fn cannot_run(missing: &str) {
    assert!(std::env::var_os("KILN_TESTS_MUST_RUN").is_none_or(|value| value != "1"), "cannot run: {missing}");
    eprintln!("SKIPPED: {missing}");
}

/// Polls until there is a result.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// For a coordinator's arguments: it requires its user's token; otherwise it would admit everybody else.
pub const ASKS: &str = "(asks for its user's token)";

fn kiln() -> Command {
    kiln_behind(&[])
}

fn signal(child: &Child, what: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, what).unwrap();
}

/// `kiln`, executed by the program named before it.
fn kiln_behind(before: &[&str]) -> Command {
    let words: Vec<&str> = before.iter().copied().chain([env!("CARGO_BIN_EXE_kiln")]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.env_remove("KILN_FARM").env_remove("KILN_LOG").env("USER", "tester").stdin(Stdio::null());
    command
}

/// Starts a process of the farm on a thread that lives as long as this program: the kernel kills it when the thread
/// ends.
fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<Child>);
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            while let Ok((mut command, reply)) = receiver.recv() {
                let _ = reply.send(command.spawn().unwrap());
            }
        });
        Mutex::new(sender)
    });
    let (reply, child) = mpsc::channel();
    orders.lock().unwrap().send((command, reply)).unwrap();
    child.recv().unwrap()
}

/// Asking every tool for its version takes seconds; one worker's probe serves all tests.
pub fn tools_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools.json")
}

/// A coordinator and workers, as processes that end with this program.
pub struct Farm {
    pub dir: tempfile::TempDir,
    pub url: String,
    /// Arguments of its coordinator.
    more: Vec<String>,
    /// Variables of its coordinator.
    variables: Vec<(String, String)>,
    /// Variables with `kiln`'s credentials.
    pub access: Vec<(String, String)>,
    coordinator: Mutex<Child>,
    workers: Mutex<BTreeMap<String, Child>>,
    /// The process ids of all workers that were ever started.
    pids: Mutex<Vec<u32>>,
}

impl Drop for Farm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log("coordinator");
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the coordinator's last words:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        let mut workers = self.workers.lock().unwrap_or_else(|broken| broken.into_inner());
        let coordinator = self.coordinator.get_mut().unwrap_or_else(|broken| broken.into_inner());
        for child in workers.values_mut().chain([coordinator]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        caretaker::remove_groups(&self.pids());
    }
}

fn log(dir: &Path, name: &str) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(dir.join(format!("{name}.log"))).unwrap()
}

impl Farm {
    /// A farm with these workers, all of them registered.
    pub fn start(workers: &[&str]) -> Self {
        Self::with_redis(None, workers)
    }

    /// The same, with a Redis that other coordinators may share.
    pub fn with_redis(redis: Option<&str>, workers: &[&str]) -> Self {
        // Farms that share a Redis in these tests form one farm.
        let key = Path::new(env!("CARGO_TARGET_TMPDIR")).join("farm.key");
        let key = key.to_str().unwrap();
        let more: Vec<&str> = redis.iter().flat_map(|redis| ["--redis", redis, "--farm-key", key]).collect();
        Self::with(&more, workers)
    }

    /// The same, with additional arguments for its coordinator.
    pub fn with(more: &[&str], workers: &[&str]) -> Self {
        Self::with_variables(Vec::new(), more, workers)
    }

    /// The same, with variables for its coordinator.
    pub fn with_variables(variables: Vec<(String, String)>, more: &[&str], workers: &[&str]) -> Self {
        let farm = Self::bare(caretaker::directory(), "http", variables, more, Vec::new());
        farm.wait_until_up();
        workers.iter().for_each(|name| farm.start_worker(name));
        workers.iter().for_each(|name| farm.wait_for_worker(name));
        if let Some(first) = workers.first() {
            let _ = std::fs::copy(farm.dir.path().join(first).join("tools.json"), tools_cache());
        }
        farm
    }

    /// A coordinator alone, which may not respond yet.
    pub fn bare(
        dir: tempfile::TempDir,
        scheme: &str,
        variables: Vec<(String, String)>,
        more: &[&str],
        access: Vec<(String, String)>,
    ) -> Self {
        let more: Vec<String> = more.iter().map(|argument| (*argument).to_owned()).collect();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("{scheme}://127.0.0.1:{port}");
        let coordinator = Mutex::new(Self::coordinator(dir.path(), &url, &variables, &more));
        Self { dir, url, more, variables, access, coordinator, workers: Mutex::default(), pids: Mutex::default() }
    }

    pub fn wait_until_up(&self) {
        until("the coordinator to answer", || (self.kiln(&["workers", "--json"]).code == 0).then_some(()));
    }

    /// One farm for all tests of this program that leave it unchanged.
    pub fn shared() -> &'static Self {
        static FARM: OnceLock<Farm> = OnceLock::new();
        FARM.get_or_init(|| Self::start(&["one", "two"]))
    }

    fn coordinator(dir: &Path, url: &str, variables: &[(String, String)], more: &[String]) -> Child {
        let (_, listen) = url.split_once("://").unwrap();
        let parent = std::process::id().to_string();
        let mut command = kiln();
        if url.starts_with("http:") && !more.iter().any(|argument| argument == ASKS) {
            command.env("KILN_INSECURE", "true");
        }
        command
            .env("KILN_LOG", "info")
            .envs(variables.iter().cloned())
            .args(["coordinator", "--listen", listen, "--parent", &parent, "--data-dir"])
            .arg(dir.join("coordinator"))
            .args(more.iter().filter(|argument| *argument != ASKS))
            .stderr(log(dir, "coordinator"));
        spawn(command)
    }

    pub fn start_worker(&self, name: &str) {
        self.start_worker_by(&self.url, name, &[]);
    }

    /// A worker with additional arguments.
    pub fn start_worker_with(&self, name: &str, more: &[&str]) {
        self.start_worker_by(&self.url, name, more);
    }

    /// A worker that reaches the coordinator at this URL.
    pub fn start_worker_by(&self, url: &str, name: &str, more: &[&str]) {
        self.start_worker_in(url, name, more, &[]);
    }

    /// A worker with these environment variables.
    pub fn start_worker_in(&self, url: &str, name: &str, more: &[&str], variables: &[(&str, &str)]) {
        self.start_worker_behind(&[], url, name, more, variables);
    }

    /// A worker that another program, such as `nsenter`, executes after its own setup.
    pub fn start_worker_behind(
        &self,
        before: &[&str],
        url: &str,
        name: &str,
        more: &[&str],
        variables: &[(&str, &str)],
    ) {
        let state = self.dir.path().join(name);
        std::fs::create_dir_all(&state).unwrap();
        let _ = std::fs::copy(tools_cache(), state.join("tools.json"));
        let parent = std::process::id().to_string();
        let mut command = kiln_behind(before);
        command
            .env("KILN_LOG", "info")
            .envs(variables.iter().copied())
            .args(["worker", "--coordinator", url, "--name", name, "--parent", &parent, "--state-dir"])
            .arg(state)
            .args(more)
            .stderr(log(self.dir.path(), name));
        let child = spawn(command);
        self.pids.lock().unwrap().push(child.id());
        let pids: String = self.pids().iter().map(|pid| format!("{pid}\n")).collect();
        std::fs::write(self.dir.path().join("pids"), pids).unwrap();
        self.workers.lock().unwrap().insert(name.to_owned(), child);
    }

    pub fn workers(&self) -> Vec<Value> {
        let ran = self.kiln(&["workers", "--json"]);
        if ran.code == 0 { serde_json::from_str(&ran.out).unwrap() } else { Vec::new() }
    }

    pub fn wait_for_worker(&self, name: &str) {
        until(&format!("worker `{name}` to register"), || {
            self.workers().into_iter().find(|worker| worker["worker"] == name && worker["state"] == "ready")
        });
    }

    /// kill -9.
    pub fn kill_worker(&self, name: &str) {
        let mut child = self.workers.lock().unwrap().remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Process ids of all workers that were ever started here.
    pub fn pids(&self) -> Vec<u32> {
        self.pids.lock().unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// Sends a worker a signal, without waiting for the effect.
    pub fn signal_worker(&self, name: &str, what: nix::sys::signal::Signal) {
        signal(&self.workers.lock().unwrap()[name], what);
    }

    /// Asks a worker to stop and waits for it; returns its exit code.
    pub fn stop_worker(&self, name: &str) -> Option<i32> {
        let mut child = self.workers.lock().unwrap().remove(name).unwrap();
        signal(&child, nix::sys::signal::Signal::SIGTERM);
        child.wait().unwrap().code()
    }

    /// Asks the coordinator to stop, waits for it, and starts another process in its place. Returns the first one's
    /// exit code.
    pub fn replace_coordinator(&self) -> Option<i32> {
        let mut coordinator = self.coordinator.lock().unwrap();
        signal(&coordinator, nix::sys::signal::Signal::SIGTERM);
        let code = coordinator.wait().unwrap().code();
        *coordinator = Self::coordinator(self.dir.path(), &self.url, &self.variables, &self.more);
        code
    }

    /// kill -9 of the coordinator; afterwards another process takes its place.
    pub fn restart_coordinator(&self) {
        let mut coordinator = self.coordinator.lock().unwrap();
        coordinator.kill().unwrap();
        coordinator.wait().unwrap();
        *coordinator = Self::coordinator(self.dir.path(), &self.url, &self.variables, &self.more);
    }

    /// kill -9 of the coordinator, without a replacement.
    pub fn kill_coordinator(&self) {
        let mut coordinator = self.coordinator.lock().unwrap();
        coordinator.kill().unwrap();
        coordinator.wait().unwrap();
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// `kiln` with these arguments, connected to this farm.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = kiln();
        command.args(arguments).env("KILN_FARM", &self.url).env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        command.envs(self.access.iter().cloned());
        command
    }

    pub fn kiln(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments))
    }

    /// `kiln build` of a directory with JSON events; artifacts go to `kiln-out` in it.
    pub fn build(&self, dir: &Path, more: &[&str]) -> Built {
        Built(Ran::from(self.build_command(dir, more)))
    }

    pub fn build_command(&self, dir: &Path, more: &[&str]) -> Command {
        let mut command = self.command(&["build", "--progress", "json"]);
        command.args(more).current_dir(dir);
        command
    }

    /// A build that continues while the test does something else.
    pub fn start_build(&self, dir: &Path, more: &[&str]) -> Running {
        Running::start(self.build_command(dir, more))
    }
}

/// The results of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Command> for Ran {
    fn from(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (ended, waiting) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            let hangs = waiting.recv_timeout(HANGS) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            hangs.then(|| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)).is_some()
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        assert!(!watch.join().unwrap(), "{command:?} did not end within {HANGS:?}: {output:?}");
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A build's events.
#[derive(Debug)]
pub struct Built(pub Ran);

impl Built {
    pub fn events(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("expected JSON, found: {line}"));
        self.0.out.lines().map(parse).collect()
    }

    pub fn of_type(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["type"] == kind).collect()
    }

    /// The build, which must have succeeded.
    #[track_caller]
    pub fn well(self) -> Self {
        assert_eq!(self.0.code, 0, "expected a success, found\n{}\n{}", self.0.out, self.0.err);
        self
    }

    /// For each step, whether it was a hit.
    pub fn caches(&self) -> BTreeMap<String, String> {
        let of =
            |event: Value| (event["step"].as_str().unwrap().to_owned(), event["cache"].as_str().unwrap().to_owned());
        self.of_type("step_finished").into_iter().map(of).collect()
    }

    /// The output of all steps.
    pub fn log(&self) -> String {
        self.of_type("log").iter().map(|event| event["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    pub fn finished(&self) -> Value {
        self.events()
            .pop()
            .filter(|event| event["type"] == "build_finished")
            .expect("the last event is the build's end")
    }

    pub fn message(&self) -> String {
        self.finished()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn id(&self) -> String {
        self.of_type("build_started")[0]["build"].as_str().unwrap().to_owned()
    }
}

/// A running `kiln build`.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a matching event.
    pub fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            self.seen.push(line);
            if fits(&event) {
                return event;
            }
        }
        panic!("the events ended before {what}: {:#?}", self.seen);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn started(&mut self, step: &str) -> Value {
        self.until(&format!("step `{step}` ran"), |event| event["type"] == "step_started" && event["step"] == step)
    }

    pub fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The complete build, once it has ended.
    pub fn end(mut self) -> Built {
        for line in self.lines.by_ref() {
            self.seen.push(line.unwrap());
        }
        let output = self.child.wait_with_output().unwrap();
        Built(Ran {
            code: output.status.code().unwrap_or(-1),
            out: self.seen.join("\n"),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// A source tree with these files.
pub fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    dir
}

pub fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A copy of an example of this repository, outside of its git tree.
pub fn example(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    copy(&from, dir.path());
    dir
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// Unpacks the only `.tar.zst` below a directory after comparing its checksum; returns where.
pub fn unpack(dir: &Path) -> tempfile::TempDir {
    let archive = find(dir, ".tar.zst").unwrap_or_else(|| panic!("no archive in {}", dir.display()));
    let data = std::fs::read(&archive).unwrap();
    let said = std::fs::read_to_string(format!("{}.sha256", archive.display())).unwrap();
    let digest = kiln_proto::digest::DigestFunction::Sha256.digest(&data);
    assert!(said.starts_with(&digest.hex()), "expected the checksum of the archive, found {said}");
    let to = tempfile::tempdir().unwrap();
    tar::Archive::new(zstd::Decoder::new(data.as_slice()).unwrap()).unpack(to.path()).unwrap();
    to
}

/// A file below a directory whose name ends with this.
pub fn find(dir: &Path, suffix: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return find(&path, suffix);
        }
        path.to_string_lossy().ends_with(suffix).then_some(path)
    })
}

/// The output of a command.
pub fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str], dir: &Path) -> String {
    let output = Command::new(&program).args(arguments).current_dir(dir).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{:?} {arguments:?}: {}", program.as_ref(), text(&output.stderr));
    text(&output.stdout)
}

/// Makes a directory a git repository with all its files committed; returns the commit's name.
pub fn commit(dir: &Path) -> String {
    if !dir.join(".git").exists() {
        git(dir, &["init", "-q"]);
    }
    git(dir, &["add", "-A"]);
    git(dir, &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "change"]);
    git(dir, &["rev-parse", "HEAD"]).trim().to_owned()
}

pub fn git(dir: &Path, arguments: &[&str]) -> String {
    output("git", arguments, dir)
}

/// A process that runs until it is interrupted, and the lines of its standard error.
pub struct Lasting {
    child: Child,
    lines: Lines<BufReader<std::process::ChildStderr>>,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lasting {
    pub fn start(mut command: Command) -> Self {
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = spawn(command);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    pub fn line_with(&mut self, words: &str) -> String {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
        panic!("it ended before it said `{words}`: {seen:#?}");
    }

    pub fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    pub fn wait(&mut self) -> Option<i32> {
        for _ in self.lines.by_ref() {}
        self.child.wait().unwrap().code()
    }
}
