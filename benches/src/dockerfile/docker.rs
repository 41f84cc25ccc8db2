//! The peer: `docker build` with the BuildKit of the local engine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::report::{Figure, Latencies};

/// The local Docker Engine.
#[derive(Debug)]
pub(super) struct Docker;

impl Docker {
    /// # Errors
    /// If no engine responds.
    pub(super) fn new() -> anyhow::Result<Self> {
        docker(&["version"]).context("`--docker` needs a running Docker Engine")?;
        Ok(Self)
    }

    /// Builds the Dockerfile in `tree`.
    pub(super) fn build(&self, tree: &Path, arguments: &[&str]) -> anyhow::Result<Duration> {
        let began = Instant::now();
        docker(&[&["build", "--quiet"], arguments, &[crate::farm::text(tree)?]].concat())?;
        Ok(began.elapsed())
    }

    /// Pushes an image.
    pub(super) fn push(&self, name: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        docker(&["push", "--quiet", name])?;
        Ok(began.elapsed())
    }
}

fn docker(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("docker")
        .args(arguments)
        .env("DOCKER_BUILDKIT", "1")
        .stdin(Stdio::null())
        .output()
        .context("cannot start `docker`")?;
    if !output.status.success() {
        bail!("`docker {}` failed:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The same build with Kiln and with the peer, in turns.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    kiln: Latencies,
    docker: Latencies,
    ratios: Vec<f64>,
}

impl Pairs {
    pub(super) fn record(&mut self, kiln: Duration, docker: Option<Duration>) {
        self.kiln.record(kiln);
        if let Some(docker) = docker {
            self.docker.record(docker);
            self.ratios.push(kiln.as_secs_f64() / docker.as_secs_f64());
        }
    }

    /// Kiln's median and 90th percentile, then the peer's median and the median of the ratios.
    pub(super) fn figures(mut self, name: &str, wanted: &str) -> Vec<Figure> {
        let mut figures = vec![
            Figure::new(format!("{name}, p50"), self.kiln.quantile_ms(0.5), "ms").wanted(wanted),
            Figure::new("  p90", self.kiln.quantile_ms(0.9), "ms"),
        ];
        self.ratios.sort_by(f64::total_cmp);
        if let Some(ratio) = self.ratios.get(self.ratios.len() / 2) {
            figures.push(Figure::new("  BuildKit, p50", self.docker.quantile_ms(0.5), "ms"));
            figures.push(Figure::new("  Kiln's time as a share of BuildKit's, p50 of the pairs", 100.0 * ratio, "%"));
        }
        figures
    }
}
