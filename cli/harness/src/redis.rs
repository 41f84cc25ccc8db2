//! Real Redis servers on ports of this machine, each stopped when dropped.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Where `.ci/test` installs Valkey.
const VALKEY: &str = "/opt/kiln-test-tools/bin/valkey-server";

/// One `redis-server`, or whatever `KILN_REDIS_SERVER` names.
pub struct Redis {
    program: String,
    child: Option<Child>,
    pub port: u16,
    dir: TempDir,
    flags: Vec<String>,
    /// What its client needs to reach it.
    client: Vec<String>,
}

/// Whether Redis is installed; prints a message if not.
pub fn is_installed() -> bool {
    Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Whether Redis is installed; a test that needs it is skipped or fails if it is not.
pub(crate) fn is_there() -> bool {
    let installed = is_installed();
    if !installed {
        crate::cannot_run("redis-server is not installed");
    }
    installed
}

pub(crate) fn free_port() -> u16 {
    // Below the kernel's range for outgoing connections, so that none of those takes it meanwhile.
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let spread = (std::process::id() as u16 % 997) * 11;
        let port = 11_000 + (spread + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_900;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Redis {
    /// A Redis without persistence.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A Redis that keeps everything over a restart, as one with the farm's journal does. `None`, with a message, if Redis is not installed.
    pub fn durable() -> Option<Self> {
        is_there().then(|| Self::with(&["--appendonly", "yes"]))
    }

    /// A Redis with additional flags, such as `--maxmemory 10mb`.
    pub fn with(flags: &[&str]) -> Self {
        let port = free_port();
        let mut all = vec!["--port".to_owned(), port.to_string()];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Self::launch(port, all, Vec::new())
    }

    /// A server that can wait for its disk, which keeps everything; `None`, with a message, if it is not installed.
    pub fn valkey(flags: &[&str]) -> Option<Self> {
        if !Path::new(VALKEY).exists() {
            crate::cannot_run(&format!("`{VALKEY}` is missing; `.ci/test` installs it"));
            return None;
        }
        let port = free_port();
        let mut all = vec!["--port".to_owned(), port.to_string(), "--appendonly".into(), "yes".into()];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Some(Self::launch_as(VALKEY.to_owned(), port, all, Vec::new()))
    }

    /// A Redis that only speaks TLS, with the certificate in this directory.
    pub fn with_tls(certificates: &Path) -> Self {
        let port = free_port();
        let (flags, client) = Self::listens(port, Some(certificates));
        Self::launch(port, flags, client)
    }

    /// Flags for a port, with TLS if there are certificates, and what a client needs for it.
    pub(crate) fn listens(port: u16, certificates: Option<&Path>) -> (Vec<String>, Vec<String>) {
        let Some(certificates) = certificates else { return (vec!["--port".to_owned(), port.to_string()], Vec::new()) };
        let file = |name: &str| certificates.join(name).display().to_string();
        let flags = ["--port", "0", "--tls-auth-clients", "no", "--tls-port"].map(str::to_owned);
        let mut all: Vec<String> = flags.into();
        all.push(port.to_string());
        for (flag, name) in
            [("--tls-cert-file", "server.pem"), ("--tls-key-file", "server.key"), ("--tls-ca-cert-file", "ca.pem")]
        {
            all.extend([flag.to_owned(), file(name)]);
        }
        (all, vec!["--tls".into(), "--cacert".into(), file("ca.pem")])
    }

    pub(crate) fn launch(port: u16, flags: Vec<String>, client: Vec<String>) -> Self {
        Self::launch_as(std::env::var("KILN_REDIS_SERVER").unwrap_or("redis-server".into()), port, flags, client)
    }

    fn launch_as(program: String, port: u16, flags: Vec<String>, client: Vec<String>) -> Self {
        Self::launch_in(tempfile::tempdir().unwrap(), program, port, flags, client)
    }

    /// In a directory that may have its configuration.
    pub(crate) fn launch_in(dir: TempDir, program: String, port: u16, flags: Vec<String>, client: Vec<String>) -> Self {
        let mut redis = Self { program, child: None, port, dir, flags, client };
        redis.restart();
        redis
    }

    /// Restarts it on its port; returns when it accepts connections.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(&self.program);
        // A Sentinel has a file for everything.
        if !self.flags.iter().any(|flag| flag == "--sentinel") {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(self.dir.path());
        }
        let mut child = command
            .args(&self.flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("expected redis-server to start");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("Ready to accept connections") || line.contains("Sentinel ID is"));
        assert!(ready, "redis-server ended before it was ready, with {:?}", self.flags);
        // Its further output is read, so that it never blocks on a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        self.child = Some(child);
    }

    /// Asks it to stop, and waits for its end.
    pub fn stop(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Kills it, like a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Its directory, with whatever it keeps.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The response of `redis-cli`, without the newline.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let (succeeded, text) = self.answer(arguments);
        assert!(succeeded, "redis-cli {arguments:?}: {text}");
        text
    }

    /// Whether Redis says this; not where it is just not to be talked to.
    pub fn says(&self, arguments: &[&str], what: &str) -> bool {
        self.answer(arguments).1.contains(what)
    }

    fn answer(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--no-auth-warning"])
            .args(&self.client)
            .args(arguments)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Stores arbitrary bytes under a key.
    pub fn set(&self, key: &str, value: &[u8]) {
        use std::io::Write;
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(&self.client).args(["-x", "SET", key]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(value).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Its keys that match a pattern.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let text = self.cli(&["KEYS", pattern]);
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three masters that divide the keys among them.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// A cluster without persistence.
    pub fn start() -> Self {
        Self::with(&[], 0)
    }

    /// A cluster that keeps everything over a restart, and whose masters have a replica each. `None`, with a message, if Redis is not
    /// installed.
    pub fn durable() -> Option<Self> {
        is_there().then(|| Self::with(&["--appendonly", "yes", "--repl-diskless-sync-delay", "0"], 1))
    }

    fn with(flags: &[&str], replicas: usize) -> Self {
        // The cluster bus needs its own port for each.
        let node = || {
            let bus = free_port().to_string();
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
            Redis::with(&[&own, flags].concat())
        };
        let nodes: Vec<Redis> = (0..3 * (1 + replicas)).map(|_| node()).collect();
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("All 16384 slots covered"), "expected a cluster: {text}");
        for node in &nodes {
            let is_whole = || node.says(&["CLUSTER", "INFO"], "cluster_state:ok").then_some(());
            crate::until("the cluster to be whole", is_whole);
            let info = || node.cli(&["INFO", "replication"]);
            let follows = || (!info().contains("role:slave") || info().contains("master_link_status:up")).then_some(());
            crate::until("the replicas of the cluster", follows);
        }
        Self { nodes }
    }

    /// The node that is the master of a key now.
    pub fn master_of(&self, key: &str) -> usize {
        crate::until("the master of a key", || {
            let is_it = |node: &Redis| {
                let slot = node.cli(&["CLUSTER", "KEYSLOT", key]);
                node.says(&["INFO", "replication"], "role:master")
                    && !node.says(&["CLUSTER", "COUNTKEYSINSLOT", &slot], "0")
            };
            self.nodes.iter().position(is_it)
        })
    }

    /// The addresses of all nodes.
    pub fn url(&self) -> String {
        self.nodes.iter().map(Redis::url).collect::<Vec<_>>().join(",")
    }
}
