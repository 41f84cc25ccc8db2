//! A master, its replica, and Sentinels that replace the one by the other.

use std::path::Path;

use crate::redis::{Redis, free_port, is_there};

/// What guards Redis and the Sentinels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guards<'a> {
    /// The password of Redis.
    pub redis: Option<&'a str>,
    /// The password of the Sentinels.
    pub sentinels: Option<&'a str>,
    /// A directory of certificates: all of them speak TLS only.
    pub certificates: Option<&'a Path>,
}

/// A master, its replica, and Sentinels that replace the one by the other.
pub struct Replicated {
    pub nodes: Vec<Redis>,
    pub sentinels: Vec<Redis>,
}

impl Guards<'_> {
    /// A node with these flags beside those that guard it.
    fn node(&self, flags: &[&str]) -> Redis {
        let port = free_port();
        let (mut all, mut client) = Redis::listens(port, self.certificates);
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        if self.certificates.is_some() {
            all.extend(["--tls-replication", "yes"].map(str::to_owned));
        }
        if let Some(password) = self.redis {
            all.extend(["--requirepass", password, "--masterauth", password].map(str::to_owned));
            client.extend(["-a", password].map(str::to_owned));
        }
        Redis::launch(port, all, client)
    }

    /// A Sentinel that watches the master at this port, as `main`.
    fn sentinel(&self, master: u16) -> Redis {
        let port = free_port();
        let (flags, mut client) = Redis::listens(port, self.certificates);
        let mut lines: Vec<String> = flags.chunks(2).map(|pair| pair.join(" ").replacen("--", "", 1)).collect();
        if self.certificates.is_some() {
            lines.push("tls-replication yes".to_owned());
        }
        lines.push(format!("sentinel monitor main 127.0.0.1 {master} 2"));
        lines.push("sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 4000".to_owned());
        if let Some(password) = self.redis {
            lines.push(format!("sentinel auth-pass main {password}"));
        }
        if let Some(password) = self.sentinels {
            lines.push(format!("requirepass {password}\nsentinel sentinel-pass {password}"));
            client.extend(["-a", password].map(str::to_owned));
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let flags = vec![file.display().to_string(), "--sentinel".to_owned()];
        Redis::launch_in(dir, "redis-server".to_owned(), port, flags, client)
    }
}

impl Replicated {
    /// Starts them; returns when the replica is connected and the Sentinels know of it and of each other. `None`, with a message, if
    /// Redis is not installed.
    pub fn start() -> Option<Self> {
        Self::guarded(&Guards::default())
    }

    /// The same, guarded.
    pub fn guarded(guards: &Guards<'_>) -> Option<Self> {
        if !is_there() {
            return None;
        }
        let durable = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];
        let master = guards.node(&durable);
        let of_master = format!("127.0.0.1 {}", master.port);
        let replica = guards.node(&[&durable[..], &["--replicaof", &of_master]].concat());
        let is_up = || replica.says(&["INFO", "replication"], "master_link_status:up").then_some(());
        crate::until("the replica of Redis", is_up);
        let sentinels: Vec<Redis> = (0..3).map(|_| guards.sentinel(master.port)).collect();
        for sentinel in &sentinels {
            let knows = |what: &str, port: u16| sentinel.says(&["SENTINEL", what, "main"], &port.to_string());
            let others = sentinels.iter().filter(|other| other.port != sentinel.port);
            let all: Vec<u16> = others.map(|other| other.port).collect();
            crate::until("the Sentinels to know each other", || {
                let knows_all = all.iter().all(|port| knows("sentinels", *port));
                (knows_all && knows("replicas", replica.port)).then_some(())
            });
        }
        Some(Self { nodes: vec![master, replica], sentinels })
    }

    /// The address that asks the Sentinels.
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/main", self.hosts())
    }

    /// The Sentinels, as an address lists them.
    pub fn hosts(&self) -> String {
        let hosts = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
        hosts.collect::<Vec<_>>().join(",")
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
