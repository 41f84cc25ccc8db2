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

fn is_there() -> bool {
    let installed = is_installed();
    if !installed {
        crate::cannot_run("redis-server is not installed");
    }
    installed
}

fn free_port() -> u16 {
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
        let file = |name: &str| certificates.join(name).display().to_string();
        let flags = ["--port", "0", "--tls-auth-clients", "no", "--tls-port"].map(str::to_owned);
        let mut all: Vec<String> = flags.into();
        all.push(port.to_string());
        for (flag, name) in
            [("--tls-cert-file", "server.pem"), ("--tls-key-file", "server.key"), ("--tls-ca-cert-file", "ca.pem")]
        {
            all.extend([flag.to_owned(), file(name)]);
        }
        Self::launch(port, all, vec!["--tls".into(), "--cacert".into(), file("ca.pem")])
    }

    /// A Sentinel that watches the master at this port, as `main`.
    fn sentinel(master: &str, passwords: Option<(&str, &str)>) -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nsentinel monitor main 127.0.0.1 {master} 2\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 4000\n"
        );
        let guards = passwords.map(|(redis, own)| {
            format!("sentinel auth-pass main {redis}\nrequirepass {own}\nsentinel sentinel-pass {own}\n")
        });
        std::fs::write(&file, text + &guards.unwrap_or_default()).unwrap();
        let flags = vec![file.display().to_string(), "--sentinel".to_owned()];
        let mut redis = Self { program: "redis-server".into(), child: None, port, dir, flags, client: Vec::new() };
        redis.restart();
        redis
    }

    fn launch(port: u16, flags: Vec<String>, client: Vec<String>) -> Self {
        Self::launch_as(std::env::var("KILN_REDIS_SERVER").unwrap_or("redis-server".into()), port, flags, client)
    }

    fn launch_as(program: String, port: u16, flags: Vec<String>, client: Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
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

/// A master, its replica, and Sentinels that replace the one by the other.
pub struct Replicated {
    pub nodes: Vec<Redis>,
    pub sentinels: Vec<Redis>,
}

impl Replicated {
    /// Starts them; returns when the replica is connected and the Sentinels know of it and of each other. `None`, with a message, if
    /// Redis is not installed.
    pub fn start() -> Option<Self> {
        is_there().then(|| Self::launch(None))
    }

    /// The same, with passwords for Redis and for the Sentinels.
    pub fn guarded(redis: &str, sentinels: &str) -> Option<Self> {
        is_there().then(|| Self::launch(Some((redis, sentinels))))
    }

    fn launch(passwords: Option<(&str, &str)>) -> Self {
        let login = |mut redis: Redis, password: Option<&str>| {
            redis.client = password.map(|password| vec!["-a".to_owned(), password.to_owned()]).unwrap_or_default();
            redis
        };
        let of_redis = passwords.map(|(redis, _)| redis);
        let guards = of_redis.map(|password| ["--requirepass", password, "--masterauth", password]);
        let durable = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];
        let flags = [&durable[..], guards.as_ref().map_or(&[], |guards| &guards[..])].concat();
        let master = login(Redis::with(&flags), of_redis);
        let port = master.port.to_string();
        let of_master = format!("127.0.0.1 {port}");
        let replica = login(Redis::with(&[&flags[..], &["--replicaof", &of_master]].concat()), of_redis);
        let is_up = || replica.says(&["INFO", "replication"], "master_link_status:up").then_some(());
        crate::until("the replica of Redis", is_up);
        let sentinel = || login(Redis::sentinel(&port, passwords), passwords.map(|(_, sentinels)| sentinels));
        let sentinels: Vec<Redis> = (0..3).map(|_| sentinel()).collect();
        let knows = |sentinel: &Redis, what: &str, port: u16| {
            sentinel.cli(&["SENTINEL", what, "main"]).contains(&port.to_string())
        };
        for sentinel in &sentinels {
            let others = sentinels.iter().filter(|other| other.port != sentinel.port);
            let all: Vec<u16> = others.map(|other| other.port).collect();
            crate::until("the Sentinels to know each other", || {
                let knows_all = all.iter().all(|port| knows(sentinel, "sentinels", *port));
                (knows_all && knows(sentinel, "replicas", replica.port)).then_some(())
            });
        }
        Self { nodes: vec![master, replica], sentinels }
    }

    /// The address that asks the Sentinels.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    /// Waits until the Sentinels agree that this node is the master.
    pub fn wait_for_master(&self, node: usize) {
        let port = self.nodes[node].port.to_string();
        for sentinel in &self.sentinels {
            let ask = ["SENTINEL", "get-master-addr-by-name", "main"];
            crate::until("the Sentinels to agree on a master", || sentinel.says(&ask, &port).then_some(()));
        }
        let is_master = || self.nodes[node].says(&["INFO", "replication"], "role:master").then_some(());
        crate::until("the replica to be the master", is_master);
    }
}

/// Three masters that divide the keys among them.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// A cluster without persistence.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A cluster that keeps everything over a restart. `None`, with a message, if Redis is not installed.
    pub fn durable() -> Option<Self> {
        is_there().then(|| Self::with(&["--appendonly", "yes"]))
    }

    fn with(flags: &[&str]) -> Self {
        // The cluster bus needs its own port for each.
        let node = || {
            let bus = free_port().to_string();
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
            Redis::with(&[&own, flags].concat())
        };
        let nodes = vec![node(), node(), node()];
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("All 16384 slots covered"), "expected a cluster: {text}");
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            while !node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
                std::thread::yield_now();
            }
        }
        cluster
    }

    pub fn url(&self) -> String {
        self.nodes.iter().map(Redis::url).collect::<Vec<_>>().join(",")
    }
}
