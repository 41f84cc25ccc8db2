//! An edited Go program in a Dockerfile of two stages whose compile has a cache mount, beside the compiler alone.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::docker::Pairs;
use super::{Bench, dockerfile, project};
use crate::client::Client;
use crate::farm::text;
use crate::report::{Figure, Latencies};

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<Vec<Figure>> {
    let toolchain = bench.options.go.clone().context("`compile` needs `--go`")?;
    let builder = bench.registry.with_directory(&bench.base, &toolchain, "/usr/local/go")?;
    let (dir, client) = (project()?, Client::new(&bench.farm.url)?);
    let tree = dir.path();
    std::fs::write(tree.join("go.mod"), "module bench\n\ngo 1.21\n")?;
    let mount = "--mount=type=cache,target=/root/.cache/go-build";
    let compile = "CGO_ENABLED=0 /usr/local/go/bin/go build -o /server .";
    dockerfile(
        tree,
        &format!(
            "FROM {builder} AS build\nWORKDIR /src\nCOPY go.mod *.go ./\nRUN {mount} {compile}\n\
             FROM scratch\nCOPY --from=build /server /server\nCMD [\"/server\"]\n"
        ),
    )?;
    let alone = Alone { toolchain, cache: tempfile::tempdir()?, output: tempfile::tempdir()? };
    let (mut compiler, mut fresh, mut warm) = (Latencies::default(), Latencies::default(), Pairs::default());
    for round in 0..=bench.options.fresh {
        bench.fresh_worker(&format!("compile-{round}")).await?;
        edit(tree)?;
        alone.compile(tree)?;
        let first = client.build(tree, &[])?;
        if let Some(docker) = &bench.docker {
            docker.build(tree, &[])?;
        }
        // The first one fills the caches.
        if round > 0 {
            fresh.record(first.whole);
        }
        for _ in 0..bench.options.rounds {
            edit(tree)?;
            compiler.record(alone.compile(tree)?);
            let run = client.build(tree, &[])?;
            warm.record(run.whole, bench.docker.as_ref().map(|docker| docker.build(tree, &[])).transpose()?);
        }
    }
    let alone = compiler.quantile_ms(0.5);
    let share =
        |ms: f64, wanted: &str| Figure::new("  as a share of the compiler", 100.0 * ms / alone, "%").wanted(wanted);
    let mut figures = vec![Figure::new("an edited Go program: the compiler alone, p50", alone, "ms")];
    let mut built = warm.figures("the whole build with a cache mount on a warm worker", "1.3 times the compiler");
    built.insert(1, share(built[0].value, "at most 130"));
    figures.extend(built);
    let slow = fresh.quantile_ms(0.5);
    figures.push(Figure::new("the same on a worker that never built it, p50", slow, "ms"));
    figures.push(share(slow, "at most 200"));
    Ok(figures)
}

/// A program of the standard library's HTTP server that never was.
fn edit(tree: &Path) -> std::io::Result<()> {
    let number: u32 = rand::random();
    let text = format!(
        "package main\n\nimport (\n\t\"encoding/json\"\n\t\"net/http\"\n)\n\nfunc main() {{\n\thandler := func(w http.ResponseWriter, \
         _ *http.Request) {{ _ = json.NewEncoder(w).Encode({number}) }}\n\tpanic(http.ListenAndServe(\":80\", \
         http.HandlerFunc(handler)))\n}}\n"
    );
    std::fs::write(tree.join("main.go"), text)
}

/// The compiler on this machine, with a cache that stays.
struct Alone {
    toolchain: std::path::PathBuf,
    cache: tempfile::TempDir,
    output: tempfile::TempDir,
}

impl Alone {
    fn compile(&self, tree: &Path) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let output = Command::new(self.toolchain.join("bin/go"))
            .args(["build", "-o", text(&self.output.path().join("server"))?, "."])
            .current_dir(tree)
            .env("GOCACHE", self.cache.path())
            .envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOTOOLCHAIN", "local")])
            .stdin(Stdio::null())
            .output()
            .context("cannot start `go`")?;
        if !output.status.success() {
            bail!("`go build` failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(began.elapsed())
    }
}
