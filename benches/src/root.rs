//! A new command of a Dockerfile in an image root: on workers that have nothing of the root, and on one that has it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::farm::{Farm, Setup};
use crate::report::{self, Figure, Latencies};

/// `kiln-bench root`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The root: a directory with an OCI layout, such as `skopeo copy docker://debian:12 oci:DIR:12` or `mmdebstrap` with `umoci` make.
    #[arg(long, value_name = "DIR")]
    pub base: PathBuf,
    /// Number of rounds; each uses a worker with an empty cache.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Builds per worker after the first.
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub warm: u32,
    /// An argument for the workers, such as `--root-layout=unpacked`; repeatable.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub worker_arg: Vec<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// A build of a command that never ran before.
struct Built {
    /// From when a worker has the command to its result: the root is put in place, and nothing else takes long.
    placed: Duration,
    /// The whole `kiln build`.
    whole: Duration,
}

/// Runs the rounds and prints the figures.
///
/// # Errors
/// If the base cannot be used, or a build fails.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let (dir, cache) = (tempfile::tempdir()?, tempfile::tempdir()?);
    copy(&options.base, &dir.path().join("base"))
        .with_context(|| format!("cannot read the OCI layout `{}`", options.base.display()))?;
    let config = "name = \"bench\"\nversion = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\n\
                  contexts = { base = \"oci-layout://base\" }\n";
    std::fs::write(dir.path().join("kiln.toml"), config)?;
    std::fs::write(dir.path().join(".dockerignore"), "base\n")?;
    let mut farm = Farm::start(0, Setup::default()).await?;
    let (mut cold, mut warm, mut placed) = (Latencies::default(), Latencies::default(), Latencies::default());
    for round in 0..=options.rounds {
        farm.stop_workers();
        farm.add_worker(&format!("fresh-{round}"), &options.worker_arg).await?;
        let first = build(&farm.url, dir.path(), cache.path())?;
        // The first one brings the base into the farm.
        if round == 0 {
            continue;
        }
        cold.record(first.placed);
        for _ in 0..options.warm {
            let next = build(&farm.url, dir.path(), cache.path())?;
            placed.record(next.placed);
            warm.record(next.whole);
        }
    }
    let figures = [
        Figure::new("the root in place on a cold worker, p50", cold.quantile_ms(0.5), "ms").wanted("under 2000"),
        Figure::new("  the slowest", cold.quantile_ms(1.0), "ms"),
        Figure::new("on a worker that has it, p50", placed.quantile_ms(0.5), "ms"),
        Figure::new("the whole `kiln build` of a new `RUN` there, p50", warm.quantile_ms(0.5), "ms")
            .wanted("under 100"),
        Figure::new("  p90", warm.quantile_ms(0.9), "ms"),
    ];
    report::print(&figures, options.json)
}

/// Builds a command that is new each time. What it leaves is copied into an image of its own, so that the base is not delivered.
fn build(url: &str, tree: &Path, cache: &Path) -> anyhow::Result<Built> {
    let number: u64 = rand::random();
    let text =
        format!("FROM base AS ran\nRUN true; echo {number} > /done\nFROM scratch\nCOPY --from=ran /done /done\n");
    std::fs::write(tree.join("Dockerfile"), text)?;
    let began = Instant::now();
    let mut child = Command::new(crate::farm::binary("kiln")?)
        .args(["build", "--progress", "json", "--farm", url])
        .env("XDG_CACHE_HOME", cache)
        .current_dir(tree)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut started, mut finished, mut last) = (None, None, String::new());
    let stdout = child.stdout.take().context("the output is piped")?;
    for line in BufReader::new(stdout).lines() {
        last = line?;
        let event: Value = serde_json::from_str(&last)?;
        match event["type"].as_str() {
            Some("step_started") => started = Some(Instant::now()),
            Some("step_finished") => finished = Some(Instant::now()),
            _ => {}
        }
    }
    if !child.wait()?.success() {
        bail!("`kiln build` failed: {last}");
    }
    let whole = began.elapsed();
    let (started, finished) = (started.context("no step started")?, finished.context("no step finished")?);
    Ok(Built { placed: finished.duration_since(started), whole })
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?
        } else {
            std::fs::copy(entry.path(), to).map(drop)?
        }
    }
    Ok(())
}
