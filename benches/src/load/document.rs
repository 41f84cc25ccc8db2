//! The report of a run: a JSON document that contains what is needed to compare it with another.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Failed calls by gRPC code.
pub type Failures = BTreeMap<String, Failure>;

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Document {
    /// The machine.
    pub machine: Machine,
    /// The target: a URL, or a farm that was started for the run.
    pub target: String,
    /// Seed of the random data.
    pub seed: u64,
    /// The cases, in the order in which they ran.
    pub cases: Vec<Case>,
}

/// The machine that made the calls, and its state before the first one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's model name.
    pub cpu_model: String,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Start of the run (RFC 3339, UTC).
    pub date: String,
    /// Load average over 1, 5 and 15 minutes.
    pub load_average: String,
}

/// A case's figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Case {
    /// Its name, as in `--only`.
    pub name: String,
    /// Concurrent calls; each caller starts its next call when the previous one has ended.
    pub concurrency: usize,
    /// What was checked in the answers.
    pub checked: String,
    /// The endpoint's message, if it refused the case.
    pub refused: Option<String>,
    /// Number of successful calls.
    pub operations: u64,
    /// Bytes of content transferred.
    pub bytes: u64,
    /// Time under load.
    pub seconds: f64,
    /// Operations per second.
    pub operations_per_second: f64,
    /// Content in MiB per second.
    pub mib_per_second: f64,
    /// Median latency.
    pub p50_ms: f64,
    /// 90th percentile of the latency.
    pub p90_ms: f64,
    /// 99th percentile of the latency.
    pub p99_ms: f64,
    /// Maximum latency.
    pub max_ms: f64,
    /// Failed calls, and calls with a wrong answer.
    pub errors: Failures,
    /// The server's peak resident memory; `None` if its process is unknown.
    pub server_peak_bytes: Option<u64>,
    /// Whether that is the peak during this case, rather than since the server started.
    pub server_peak_is_of_the_case: bool,
    /// The server's CPU time under load.
    pub server_cpu_seconds: Option<f64>,
}

/// Failed calls with the same code.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Failure {
    /// Their number.
    pub count: u64,
    /// The message of the first.
    pub first: String,
}

impl Case {
    /// A case without figures.
    pub fn new(name: &str, concurrency: usize, checked: &str) -> Self {
        Self { name: name.to_owned(), concurrency, checked: checked.to_owned(), ..Self::default() }
    }

    /// Content in MiB for each second of the server's CPU time.
    pub fn mib_per_server_cpu_second(&self) -> Option<f64> {
        let seconds = self.server_cpu_seconds.filter(|seconds| *seconds > 0.0 && self.bytes > 0)?;
        Some(self.bytes as f64 / f64::from(1 << 20) / seconds)
    }

    /// Number of failed calls.
    pub fn failures(&self) -> u64 {
        self.errors.values().map(|failure| failure.count).sum()
    }
}

impl Machine {
    /// This machine's current state. Unknown values are empty.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load_average = read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        Self {
            cpu_model: model.map(|(_, name)| name.to_owned()).unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            date: kiln_proto::clock::rfc3339(&kiln_proto::clock::now()),
            load_average,
        }
    }
}

impl Document {
    /// Reads a document written by [`write`](Self::write).
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("`{}` is not a report of `kiln-bench load`", path.display()))
    }

    /// Writes the document to a file, or to standard output for `-`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        if path == Path::new("-") {
            print!("{text}");
            return Ok(());
        }
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
    }
}
