//! `kiln build` as its user runs it, with what its events say.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// A machine that builds: its farm, and the directory where `kiln` remembers what it has scanned and sent.
#[derive(Debug)]
pub struct Client {
    url: String,
    cache: tempfile::TempDir,
}

/// A build that ended well.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// The whole command.
    pub whole: Duration,
    /// From the start of the first step to the end of the last; none if no step ran.
    pub steps: Option<Duration>,
    /// From the end of the last step, or from the start of the command if none ran, to the moved tag; none if nothing was pushed.
    pub delivered: Option<Duration>,
    /// Steps that were not in the cache.
    pub misses: u32,
    /// Bytes that the command sent to the farm.
    pub bytes_uploaded: u64,
    /// Bytes that went to a registry.
    pub bytes_pushed: u64,
    /// What became of the steps' calls of compilers.
    pub calls: Calls,
}

/// Calls of compilers of a build's steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calls {
    /// Known ones.
    pub hits: u64,
    /// Those that ran on their step's worker.
    pub here: u64,
    /// Those that ran on other workers.
    pub elsewhere: u64,
}

impl Client {
    /// A client of this farm that has never built anything.
    ///
    /// # Errors
    /// If its directory cannot be made.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self { url: url.to_owned(), cache: tempfile::tempdir()? })
    }

    /// Builds the project in `tree` with these additional arguments.
    ///
    /// # Errors
    /// If the build fails, with its output.
    pub fn build(&self, tree: &Path, arguments: &[&str]) -> anyhow::Result<Run> {
        let began = Instant::now();
        let mut child = Command::new(crate::farm::binary("kiln")?)
            .args(["build", "--progress", "json", "--farm", &self.url])
            .args(arguments)
            .env("XDG_CACHE_HOME", self.cache.path())
            .env("DOCKER_CONFIG", self.cache.path())
            .current_dir(tree)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut run = Run::default();
        let (mut started, mut last, mut said) = (None, None, Vec::new());
        for line in BufReader::new(child.stdout.take().context("the output is piped")?).lines() {
            let line = line?;
            let event: Value = serde_json::from_str(&line)?;
            let number = |name: &str| event[name].as_u64().unwrap_or_default();
            match event["type"].as_str() {
                Some("step_started") => started = started.or(Some(Instant::now())),
                Some("step_finished") => {
                    last = Some(Instant::now());
                    run.misses += u32::from(event["cache"] == "miss");
                    let calls = |name: &str| event["calls"][name].as_u64().unwrap_or_default();
                    run.calls.hits += calls("hits");
                    run.calls.here += calls("compiled");
                    run.calls.elsewhere += calls("elsewhere");
                }
                Some("pushed") => {
                    run.delivered = Some(last.unwrap_or(began).elapsed());
                    run.bytes_pushed += number("bytes_sent");
                }
                Some("build_finished") => run.bytes_uploaded = number("bytes_uploaded"),
                _ => {}
            }
            said.push(line);
        }
        if !child.wait()?.success() {
            bail!("`kiln build {}` failed:\n{}", arguments.join(" "), said.join("\n"));
        }
        run.whole = began.elapsed();
        run.steps = started.zip(last).map(|(started, last)| last.duration_since(started));
        Ok(run)
    }
}
