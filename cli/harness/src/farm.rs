//! A farm of real processes on this machine, and the real `kiln` against it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

use crate::run::{Built, Ran, Running, kiln, kiln_behind, signal, spawn, started};
use crate::{build_dir, cannot_run, caretaker, kept, until};

/// For a coordinator's arguments: it requires its user's token; otherwise it would admit everybody else.
pub const ASKS: &str = "(asks for its user's token)";
/// For a coordinator's arguments: it is the program `kiln-coordinator`, as it is installed, in place of `kiln`'s own.
pub const PROGRAM: &str = "(the program kiln-coordinator)";

/// Asking every tool for its version takes seconds; one worker's probe serves all tests.
pub fn tools_cache() -> PathBuf {
    kept().join("tools.json")
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
            let workers = self.workers.lock().unwrap_or_else(|broken| broken.into_inner());
            for (name, most) in workers.keys().map(|name| (name.as_str(), 15)).chain([("coordinator", 40)]) {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("the last words of `{name}`:\n{}", lines[lines.len().saturating_sub(most)..].join("\n"));
            }
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

pub(crate) fn log(dir: &Path, name: &str) -> std::fs::File {
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
        let key = kept().join("farm.key");
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
        let is = |mark: &str| more.iter().any(|argument| argument == mark);
        let mut command = if is(PROGRAM) { started(&build_dir().join("kiln-coordinator"), &[]) } else { kiln() };
        if !is(PROGRAM) {
            command.args(["coordinator", "--parent", &parent]);
        }
        if url.starts_with("http:") && !is(ASKS) {
            command.env("KILN_INSECURE", "true");
        }
        command
            .env("KILN_LOG", "info")
            .envs(variables.iter().cloned())
            .args(["--listen", listen, "--data-dir"])
            .arg(dir.join("coordinator"))
            .args(more.iter().filter(|argument| ![ASKS, PROGRAM].contains(&argument.as_str())))
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

    /// The process id of the coordinator.
    pub fn coordinator_pid(&self) -> u32 {
        self.coordinator.lock().unwrap().id()
    }

    /// Sends a worker a signal, without waiting for the effect.
    pub fn signal_worker(&self, name: &str, what: nix::sys::signal::Signal) {
        signal(&self.workers.lock().unwrap()[name], what);
    }

    /// Whether a worker has ended by itself.
    pub fn has_ended(&self, name: &str) -> bool {
        self.workers.lock().unwrap().get_mut(name).unwrap().try_wait().unwrap().is_some()
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

    /// Whether a farm can be started with [`PROGRAM`].
    pub fn has_program() -> bool {
        let is = build_dir().join("kiln-coordinator").exists();
        if !is {
            cannot_run("`kiln-coordinator` is not beside `kiln`; `cargo build --workspace` makes both");
        }
        is
    }

    /// Has the coordinator, which is [`PROGRAM`], read its configuration and the files that it names again, and waits until it says that it uses them.
    pub fn reload_coordinator(&self) {
        self.hang_up_coordinator("reloaded the configuration");
    }

    /// As [`Farm::reload_coordinator`], with files that it refuses.
    pub fn reload_coordinator_in_vain(&self) {
        self.hang_up_coordinator("the previous one stays in effect");
    }

    fn hang_up_coordinator(&self, words: &str) {
        let said = || self.log("coordinator").matches(words).count();
        let before = said();
        signal(&self.coordinator.lock().unwrap(), nix::sys::signal::Signal::SIGHUP);
        until(words, || (said() > before).then_some(()));
    }

    /// kill -9 of the coordinator, without a replacement.
    pub fn kill_coordinator(&self) {
        let mut coordinator = self.coordinator.lock().unwrap();
        coordinator.kill().unwrap();
        coordinator.wait().unwrap();
    }

    /// kill -9 of the coordinator; afterwards another process serves the same data at this URL, and at its host whatever else it serves.
    pub fn move_coordinator(&mut self, url: &str) {
        self.kill_coordinator();
        let host = |url: &str| url.split_once("://").unwrap().1.rsplit_once(':').unwrap().0.to_owned();
        let (before, after) = (host(&self.url), host(url));
        self.more.iter_mut().for_each(|argument| *argument = argument.replace(&before, &after));
        self.url = url.to_owned();
        let moved = Self::coordinator(self.dir.path(), url, &self.variables, &self.more);
        *self.coordinator.lock().unwrap() = moved;
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
