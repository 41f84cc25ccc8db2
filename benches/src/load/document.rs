//! What a run leaves: one JSON document, complete enough to be compared with another.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Failed calls by gRPC code.
pub type Failures = BTreeMap<String, Failure>;

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Document {
    /// Where it ran.
    pub machine: Machine,
    /// What was measured: a URL, or a farm that was started for it.
    pub target: String,
    /// Of the random data.
    pub seed: u64,
    /// In the order in which they ran.
    pub cases: Vec<Case>,
}

/// The machine that made the calls, and its state before the first of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu_model: String,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// Of 1, 5 and 15 minutes.
    pub load_average: String,
}

/// A case's figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Case {
    /// As in `--only`.
    pub name: String,
    /// Calls under way at once; each caller calls again when its call has ended.
    pub concurrency: usize,
    /// What of the answers was checked.
    pub checked: String,
    /// Why it did not run at all: what the endpoint said.
    pub refused: Option<String>,
    /// Calls that did what they should.
    pub operations: u64,
    /// Bytes of content that they moved.
    pub bytes: u64,
    /// Time under load.
    pub seconds: f64,
    /// Operations by time.
    pub operations_per_second: f64,
    /// Content by time.
    pub mib_per_second: f64,
    /// Half of the calls took at most this.
    pub p50_ms: f64,
    /// Nine tenths.
    pub p90_ms: f64,
    /// All but one in a hundred.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Calls that failed, or whose answer was wrong.
    pub errors: Failures,
    /// The server's highest resident memory; none where its process is not known.
    pub server_peak_bytes: Option<u64>,
    /// Whether that is the peak within this case, or since the server began.
    pub server_peak_is_of_the_case: bool,
    /// The server's CPU time under load.
    pub server_cpu_seconds: Option<f64>,
}

/// Failed calls of one code.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Failure {
    /// How many.
    pub count: u64,
    /// What the first of them was told.
    pub first: String,
}

impl Case {
    /// A case without figures.
    pub fn new(name: &str, concurrency: usize, checked: &str) -> Self {
        Self { name: name.to_owned(), concurrency, checked: checked.to_owned(), ..Self::default() }
    }

    /// Failed calls.
    pub fn failures(&self) -> u64 {
        self.errors.values().map(|failure| failure.count).sum()
    }
}

impl Machine {
    /// This machine, now. What it does not say is empty.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load_average = read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        Self {
            cpu_model: model.map(|(_, name)| name.to_owned()).unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            date: kiln_proto::clock::kiln_now().to_string(),
            load_average,
        }
    }
}

impl Document {
    /// Reads a document that [`write`](Self::write) left.
    ///
    /// # Errors
    /// Names the file, and says what is wrong with it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("`{}` is no report of `kiln-bench load`", path.display()))
    }

    /// Writes the document to a file, or to standard output where that is `-`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        if path == Path::new("-") {
            print!("{text}");
            return Ok(());
        }
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
    }
}
