//! A large image of which 1 MB changed: rebuilt, and pushed to a registry on this machine.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::report::{Figure, Latencies};

/// Size of the dependencies in MB, in files of ten.
const DEPENDENCIES_MB: usize = 299;
/// Size of the project's own file.
const OWN_BYTES: usize = 1_000_000;
/// Limit for the registry to respond.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Debian's `docker-registry` with its own directory.
struct Registry {
    name: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let name = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\nhttp:\n  addr: {name}\n",
                storage.display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start `docker-registry`; install Debian's package of that name")?;
        let registry = Self { name, child, _dir: dir };
        let began = Instant::now();
        while std::net::TcpStream::connect(&registry.name).is_err() {
            if began.elapsed() > READY_TIMEOUT {
                bail!("waited {READY_TIMEOUT:?} for `docker-registry` to respond");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

/// Builds and pushes an image of 300 MB with the farm, then `repeats` times with its own 1 MB changed.
///
/// # Errors
/// If `docker-registry` is missing, or a build fails.
pub fn pushes(url: &str, repeats: u32) -> anyhow::Result<Vec<Figure>> {
    let registry = Registry::start()?;
    let (dir, cache) = (tempfile::tempdir()?, tempfile::tempdir()?);
    std::fs::write(dir.path().join("kiln.toml"), project())?;
    let mut pushes = Vec::new();
    for round in 0..=repeats {
        let own: Vec<u8> = (0..OWN_BYTES).map(|_| rand::random()).collect();
        std::fs::write(dir.path().join("own.bin"), own)?;
        pushes.push(push(url, dir.path(), cache.path(), &format!("{}/bench/image:{round}", registry.name))?);
    }
    let (first, again) = pushes.split_first().context("nothing was pushed")?;
    let (mut delivered, mut whole) = (Latencies::default(), Latencies::default());
    for push in again {
        delivered.record(push.delivered);
        whole.record(push.whole);
        if push.bytes_sent > 2 * OWN_BYTES as u64 {
            bail!("a push of 1 MB that changed sent {} bytes", push.bytes_sent);
        }
    }
    let sent = again.iter().map(|push| push.bytes_sent).max().unwrap_or_default();
    let seconds = |took: Duration| took.as_secs_f64() * 1000.0;
    Ok(vec![
        Figure::new("an image of 300 MB made and pushed, first", seconds(first.delivered), "ms"),
        Figure::new("the same with 1 MB changed, from the last step to the tag, p50", delivered.quantile_ms(0.5), "ms")
            .wanted("under 1000"),
        Figure::new("  the slowest", delivered.quantile_ms(1.0), "ms"),
        Figure::new("  bytes sent to the registry", sent as f64, "bytes").wanted("the changed 1 MB and its documents"),
        Figure::new("  the whole `kiln build --push`, p50", whole.quantile_ms(0.5), "ms"),
    ])
}

fn project() -> String {
    let files = DEPENDENCIES_MB.div_ceil(10);
    format!(
        r#"
name = "bench"
version = "1"
[steps.deps]
inputs = ["kiln.lock"]
run = "mkdir deps; for i in $(seq {files}); do head -c $((({DEPENDENCIES_MB} * 1000000) / {files})) /dev/urandom > deps/$i; done"
outputs = ["deps"]
[steps.own]
inputs = ["own.bin"]
run = "mkdir out; cp own.bin out"
outputs = ["out"]
[artifacts.image]
kind = "image"
from = ["deps", "own"]
files = ["deps", "out"]
base = "scratch"
cmd = ["/out/own.bin"]
"#
    )
}

struct Pushed {
    /// From the end of the last step to the tag.
    delivered: Duration,
    /// The whole command.
    whole: Duration,
    bytes_sent: u64,
}

fn push(url: &str, tree: &Path, cache: &Path, to: &str) -> anyhow::Result<Pushed> {
    let began = Instant::now();
    let mut child = Command::new(crate::farm::binary("kiln")?)
        .args(["build", "--progress", "json", "--farm", url, "--push", to])
        .env("XDG_CACHE_HOME", cache)
        .env("DOCKER_CONFIG", cache)
        .current_dir(tree)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut stepped, mut pushed) = (None, None);
    let stdout = child.stdout.take().context("the output is piped")?;
    for line in BufReader::new(stdout).lines() {
        let event: Value = serde_json::from_str(&line?)?;
        match event["type"].as_str() {
            Some("step_finished") => stepped = Some(Instant::now()),
            Some("pushed") => pushed = Some((Instant::now(), event["bytes_sent"].as_u64().unwrap_or_default())),
            _ => {}
        }
    }
    if !child.wait()?.success() {
        bail!("`kiln build --push {to}` failed");
    }
    let whole = began.elapsed();
    let (stepped, (at, bytes_sent)) = (stepped.context("no step finished")?, pushed.context("nothing was pushed")?);
    Ok(Pushed { delivered: at.duration_since(stepped), whole, bytes_sent })
}
