//! A farm of several coordinators: real processes that agree in a real Redis, share a real bucket, and stand behind a real HAProxy.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::farm::{log, tools_cache};
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::run::{self, Built, Ran, Running, kiln, signal, spawn};
use crate::s3::{self, S3};
use crate::{caretaker, has, until};

/// What the journal needs of a Redis.
pub const KEEPS: [&str; 4] = ["--appendonly", "yes", "--maxmemory-policy", "noeviction"];

/// One of the coordinators.
struct Coordinator {
    child: Option<Child>,
    listen: String,
    metrics: String,
    /// Its way to Redis, which can be cut.
    redis: Proxy,
}

/// Coordinators of one farm, their workers, and all that they use.
pub struct Replicas {
    pub dir: tempfile::TempDir,
    pub redis: Mutex<Redis>,
    /// Shared with other farms of the program, unless something is done to it.
    pub s3: &'static S3,
    /// The address of HAProxy, which knows them all.
    pub url: String,
    front: Mutex<Child>,
    /// What coordinators and workers are started from.
    program: Mutex<PathBuf>,
    coordinators: Mutex<BTreeMap<String, Coordinator>>,
    workers: Mutex<BTreeMap<String, Child>>,
    pids: Mutex<Vec<u32>>,
    /// Arguments of each coordinator, whose name replaces `{name}`.
    more: Vec<String>,
    /// Variables with `kiln`'s credentials.
    pub access: Vec<(String, String)>,
    scheme: &'static str,
}

fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// HAProxy passes on what comes to those coordinators that say that they are ready.
fn front(dir: &Path, listen: &str, coordinators: &BTreeMap<String, Coordinator>) -> Child {
    let mut text = format!(
        "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  \
         timeout check 1s\n  retries 2\n  option redispatch\nfrontend kiln\n  bind {listen}\n  default_backend coordinators\n\
         backend coordinators\n  balance roundrobin\n  option httpchk GET /readyz\n"
    );
    for (name, coordinator) in coordinators {
        let port = coordinator.metrics.rsplit(':').next().unwrap();
        text += &format!(
            "  server {name} {} check port {port} inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n",
            coordinator.listen
        );
    }
    std::fs::write(dir.join("haproxy.cfg"), text).unwrap();
    haproxy(dir)
}

/// Starts HAProxy with the configuration that is there.
fn haproxy(dir: &Path) -> Child {
    let mut command = Command::new("haproxy");
    command
        .args(["-db", "-f"])
        .arg(dir.join("haproxy.cfg"))
        .stdout(Stdio::null())
        .stderr(log(dir, "haproxy"))
        .stdin(Stdio::null());
    spawn(command)
}

impl Replicas {
    /// A farm of these coordinators and workers; none if something that it needs is not installed.
    pub fn start(coordinators: &[&str], workers: &[&str]) -> Option<Self> {
        Self::with(coordinators, workers, &KEEPS, &["--insecure"], "http", Vec::new())
    }

    /// The same with these flags of Redis, and arguments of each coordinator.
    pub fn with(
        coordinators: &[&str],
        workers: &[&str],
        redis: &[&str],
        more: &[&str],
        scheme: &'static str,
        access: Vec<(String, String)>,
    ) -> Option<Self> {
        let farm = Self::prepare(coordinators, s3::shared()?, || Redis::with(redis), more, scheme, access)?;
        Some(farm.started(coordinators, workers))
    }

    /// A farm that agrees in a Valkey, which can wait for its disk, and has its S3 server to itself; none if something that it needs is not
    /// installed.
    pub fn on_valkey(coordinators: &[&str], workers: &[&str]) -> Option<Self> {
        let valkey = Redis::valkey(&KEEPS)?;
        let s3 = Box::leak(Box::new(S3::start()?));
        let farm = Self::prepare(coordinators, s3, || valkey, &["--insecure"], "http", Vec::new())?;
        Some(farm.started(coordinators, workers))
    }

    fn started(self, coordinators: &[&str], workers: &[&str]) -> Self {
        let farm = self;
        coordinators.iter().for_each(|name| farm.start_coordinator(name));
        farm.wait_until_led();
        workers.iter().for_each(|name| farm.start_worker(name));
        workers.iter().for_each(|name| farm.wait_for_worker(name));
        farm
    }

    /// All that a farm needs, before its first coordinator is started.
    fn prepare(
        coordinators: &[&str],
        s3: &'static S3,
        redis: impl FnOnce() -> Redis,
        more: &[&str],
        scheme: &'static str,
        access: Vec<(String, String)>,
    ) -> Option<Self> {
        if !has("haproxy") || !has("redis-server") {
            return None;
        }
        let redis = redis();
        let dir = caretaker::directory();
        std::fs::write(dir.path().join("farm.key"), "17".repeat(32) + "\n").unwrap();
        let of = |name: &&str| {
            let redis = Proxy::to(&format!("http://127.0.0.1:{}", redis.port));
            ((*name).to_owned(), Coordinator { child: None, listen: free(), metrics: free(), redis })
        };
        let all: BTreeMap<String, Coordinator> = coordinators.iter().map(of).collect();
        let listen = free();
        let front = front(dir.path(), &listen, &all);
        Some(Self {
            url: format!("{scheme}://{listen}"),
            dir,
            redis: Mutex::new(redis),
            s3,
            front: Mutex::new(front),
            program: Mutex::new(run::program()),
            coordinators: Mutex::new(all),
            workers: Mutex::default(),
            pids: Mutex::default(),
            more: more.iter().map(|argument| (*argument).to_owned()).collect(),
            access,
            scheme,
        })
    }

    /// A farm that begins with a coordinator which was alone before, whose data directory is copied; without workers.
    pub fn beginning_with(first: &str, data_dir: &Path, coordinators: &[&str]) -> Option<Self> {
        let redis = || Redis::with(&KEEPS);
        let farm = Self::prepare(coordinators, s3::shared()?, redis, &["--insecure"], "http", Vec::new())?;
        let copied = Command::new("cp").arg("-a").arg(data_dir).arg(farm.dir.path().join(first)).status().unwrap();
        assert!(copied.success());
        farm.start_coordinator(first);
        farm.wait_until_led();
        coordinators.iter().filter(|name| **name != first).for_each(|name| farm.start_coordinator(name));
        Some(farm)
    }

    fn wait_until_led(&self) {
        until("a coordinator to lead", || self.leader());
        until("the farm to answer", || (self.kiln(&["workers", "--json"]).code == 0).then_some(()));
    }

    /// Where the farm's content is in the bucket, which it shares with others.
    fn prefix(&self) -> String {
        self.dir.path().file_name().unwrap().display().to_string().replace('.', "farm-")
    }

    fn process(&self) -> Command {
        run::started(&self.program.lock().unwrap(), &[])
    }

    /// From now on, coordinators and workers are started from another version: the same program, built from another commit as far as it
    /// can tell. Returns that commit.
    pub fn upgrade(&self) -> String {
        let (built, next) = (run::program(), self.dir.path().join("kiln-next"));
        let commit = |program: &Path| {
            let about = Command::new(program).arg("--version").output().unwrap().stdout;
            let about = String::from_utf8(about).unwrap();
            about.split("(commit ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned()
        };
        let (before, after) = (commit(&built), "0".repeat(12));
        std::fs::copy(&built, &next).unwrap();
        let change = format!("s/{before}/{after}/g");
        let changed = Command::new("sed").env("LC_ALL", "C").args(["-i", &change]).arg(&next).status().unwrap();
        assert!(changed.success());
        assert_eq!(commit(&next), after, "expected another version than that of commit {before}");
        *self.program.lock().unwrap() = next;
        after
    }

    /// Asks HAProxy to stop, which ends all connections, and starts it again.
    pub fn restart_front(&self) {
        let mut front = self.front.lock().unwrap();
        signal(&front, Signal::SIGTERM);
        front.wait().unwrap();
        *front = haproxy(self.dir.path());
    }

    /// `kiln coordinator` as this one is started.
    pub fn coordinator_command(&self, name: &str) -> Command {
        let coordinators = self.coordinators.lock().unwrap();
        let coordinator = &coordinators[name];
        let redis = coordinator.redis.url.replace("http://", "redis://");
        let mut command = self.process();
        command
            .env("KILN_LOG", "info")
            .envs(self.s3.variables())
            .args(["coordinator", "--listen", &coordinator.listen, "--metrics-listen", &coordinator.metrics])
            .args(["--replicas", &redis, "--s3", &format!("s3://kiln/{}", self.prefix()), "--store-size", "2GiB"])
            .args(["--parent", &std::process::id().to_string(), "--data-dir"])
            .arg(self.dir.path().join(name))
            .args(self.more.iter().map(|argument| argument.replace("{name}", name)));
        if !self.more.iter().any(|argument| argument == "--farm-dir") {
            command.arg("--farm-key").arg(self.dir.path().join("farm.key"));
        }
        command
    }

    pub fn start_coordinator(&self, name: &str) {
        self.start_coordinator_with(name, &[]);
    }

    /// One with additional arguments.
    pub fn start_coordinator_with(&self, name: &str, more: &[&str]) {
        let mut command = self.coordinator_command(name);
        command.args(more);
        command.stderr(log(self.dir.path(), name));
        let child = spawn(command);
        self.coordinators.lock().unwrap().get_mut(name).unwrap().child = Some(child);
    }

    /// The URL of one coordinator.
    pub fn url_of(&self, name: &str) -> String {
        format!("{}://{}", self.scheme, self.coordinators.lock().unwrap()[name].listen)
    }

    pub fn names(&self) -> Vec<String> {
        self.coordinators.lock().unwrap().keys().cloned().collect()
    }

    /// kill -9.
    pub fn kill_coordinator(&self, name: &str) {
        let child = self.coordinators.lock().unwrap().get_mut(name).unwrap().child.take();
        let mut child = child.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks a coordinator to end, and waits for it; returns its exit code.
    pub fn stop_coordinator(&self, name: &str) -> Option<i32> {
        let mut child = self.coordinators.lock().unwrap().get_mut(name).unwrap().child.take().unwrap();
        signal(&child, Signal::SIGTERM);
        child.wait().unwrap().code()
    }

    pub fn signal_coordinator(&self, name: &str, what: Signal) {
        signal(self.coordinators.lock().unwrap()[name].child.as_ref().unwrap(), what);
    }

    /// Cuts a coordinator off from Redis, or joins it again.
    pub fn cut(&self, name: &str, cut: bool) {
        self.coordinators.lock().unwrap()[name].redis.cut(cut);
    }

    /// What a coordinator's metrics say, without a time limit for one that is stopped.
    pub fn metrics(&self, name: &str) -> Option<String> {
        let address = self.coordinators.lock().unwrap()[name].metrics.clone();
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// The coordinator that says that it leads.
    pub fn leader(&self) -> Option<String> {
        let leads = |name: &String| {
            self.metrics(name).is_some_and(|text| text.lines().any(|line| line == "kiln_coordinator_leads 1"))
        };
        let names = self.names();
        let mut leading = names.into_iter().filter(leads);
        let first = leading.next();
        // Two of them never do at once; but one may just have taken over.
        if leading.next().is_some() { None } else { first }
    }

    /// Waits for a leader other than this one.
    pub fn wait_for_another(&self, than: &str) -> String {
        until(&format!("another coordinator than `{than}` to lead"), || self.leader().filter(|name| name != than))
    }

    pub fn start_worker(&self, name: &str) {
        self.start_worker_with(name, &[]);
    }

    /// A worker with additional arguments.
    pub fn start_worker_with(&self, name: &str, more: &[&str]) {
        self.start_worker_at(name, &self.url, more);
    }

    /// A worker that knows these addresses, instead of HAProxy's.
    pub fn start_worker_at(&self, name: &str, url: &str, more: &[&str]) {
        let state = self.dir.path().join(name);
        std::fs::create_dir_all(&state).unwrap();
        let _ = std::fs::copy(tools_cache(), state.join("tools.json"));
        let mut command = self.process();
        command
            .env("KILN_LOG", "info")
            .args(["worker", "--coordinator", url, "--name", name, "--grace", "30s"])
            .args(["--parent", &std::process::id().to_string(), "--state-dir"])
            .arg(&state)
            .args(more)
            .stderr(log(self.dir.path(), name));
        let child = spawn(command);
        self.pids.lock().unwrap().push(child.id());
        let pids: String = self.pids.lock().unwrap().iter().map(|pid| format!("{pid}\n")).collect();
        std::fs::write(self.dir.path().join("pids"), pids).unwrap();
        self.workers.lock().unwrap().insert(name.to_owned(), child);
    }

    pub fn wait_for_worker(&self, name: &str) {
        until(&format!("worker `{name}` to register"), || {
            let ran = self.kiln(&["workers", "--json"]);
            let workers: Vec<Value> = serde_json::from_str(&ran.out).ok()?;
            workers.into_iter().find(|worker| worker["worker"] == name && worker["state"] == "ready")
        });
        let tools = self.dir.path().join(name).join("tools.json");
        if !tools_cache().exists() {
            let _ = std::fs::copy(tools, tools_cache());
        }
    }

    /// kill -9.
    pub fn kill_worker(&self, name: &str) {
        let mut child = self.workers.lock().unwrap().remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a worker a signal, without waiting for the effect.
    pub fn signal_worker(&self, name: &str, what: Signal) {
        signal(&self.workers.lock().unwrap()[name], what);
    }

    /// Asks a worker to stop and waits for it; returns its exit code.
    pub fn stop_worker(&self, name: &str) -> Option<i32> {
        let mut child = self.workers.lock().unwrap().remove(name).unwrap();
        signal(&child, Signal::SIGTERM);
        child.wait().unwrap().code()
    }

    pub fn pids(&self) -> Vec<u32> {
        self.pids.lock().unwrap().clone()
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// `kiln` with these arguments, connected to this URL.
    pub fn command_at(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = kiln();
        command.args(arguments).env("KILN_FARM", url).env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        command.envs(self.access.iter().cloned());
        command
    }

    /// `kiln` with these arguments, through HAProxy.
    pub fn kiln(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command_at(&self.url, arguments))
    }

    /// `kiln` with these arguments, connected to one coordinator.
    pub fn kiln_at(&self, coordinator: &str, arguments: &[&str]) -> Ran {
        Ran::from(self.command_at(&self.url_of(coordinator), arguments))
    }

    fn build_command(&self, url: &str, dir: &Path, more: &[&str]) -> Command {
        let mut command = self.command_at(url, &["build", "--progress", "json"]);
        command.args(more).current_dir(dir);
        command
    }

    /// `kiln build` of a directory with JSON events, through HAProxy.
    pub fn build(&self, dir: &Path, more: &[&str]) -> Built {
        Built(Ran::from(self.build_command(&self.url, dir, more)))
    }

    /// The same through one coordinator.
    pub fn build_at(&self, coordinator: &str, dir: &Path, more: &[&str]) -> Built {
        Built(Ran::from(self.build_command(&self.url_of(coordinator), dir, more)))
    }

    /// A build through HAProxy that continues while the test does something else.
    pub fn start_build(&self, dir: &Path, more: &[&str]) -> Running {
        Running::start(self.build_command(&self.url, dir, more))
    }

    /// The same through one coordinator.
    pub fn start_build_at(&self, coordinator: &str, dir: &Path, more: &[&str]) -> Running {
        Running::start(self.build_command(&self.url_of(coordinator), dir, more))
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.names() {
                let log = self.log(&name);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("the last words of `{name}`:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
            }
        }
        let mut workers = self.workers.lock().unwrap_or_else(|broken| broken.into_inner());
        let mut coordinators = self.coordinators.lock().unwrap_or_else(|broken| broken.into_inner());
        let coordinators = coordinators.values_mut().filter_map(|coordinator| coordinator.child.as_mut());
        let mut front = self.front.lock().unwrap_or_else(|broken| broken.into_inner());
        for child in workers.values_mut().chain(coordinators).chain([&mut *front]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        caretaker::remove_groups(&self.pids.lock().unwrap_or_else(|broken| broken.into_inner()));
    }
}
