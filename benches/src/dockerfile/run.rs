//! A new `RUN` in the base: on workers that have nothing of it, and on one that has it.

use std::path::Path;

use anyhow::Context;

use super::docker::Pairs;
use super::{Bench, dockerfile, project};
use crate::client::Client;
use crate::report::{Figure, Latencies};

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<Vec<Figure>> {
    let (dir, client) = (project()?, Client::new(&bench.farm.url)?);
    let (mut cold, mut warm, mut placed) = (Latencies::default(), Pairs::default(), Latencies::default());
    for round in 0..=bench.options.fresh {
        bench.fresh_worker(&format!("run-{round}")).await?;
        new_command(&bench.base, dir.path())?;
        let first = client.build(dir.path(), &[])?;
        if let Some(docker) = &bench.docker {
            docker.build(dir.path(), &[])?;
        }
        // The first one brings the base into the farm.
        if round == 0 {
            continue;
        }
        cold.record(first.steps.context("no step ran")?);
        for _ in 0..bench.options.rounds {
            new_command(&bench.base, dir.path())?;
            let next = client.build(dir.path(), &[])?;
            placed.record(next.steps.context("no step ran")?);
            let docker = bench.docker.as_ref().map(|docker| docker.build(dir.path(), &[])).transpose()?;
            warm.record(next.whole, docker);
        }
    }
    let mut figures = vec![
        Figure::new("a new `RUN`: the step on a worker without the root, p50", cold.quantile_ms(0.5), "ms")
            .wanted("under 2000"),
        Figure::new("  the slowest", cold.quantile_ms(1.0), "ms"),
        Figure::new("the step on a worker that has the root, p50", placed.quantile_ms(0.5), "ms"),
    ];
    figures.extend(warm.figures("the whole build of a new `RUN` there", "at most 100"));
    Ok(figures)
}

/// Writes a command that is new each time. What it leaves is copied into an image of its own, so that the base is not delivered.
fn new_command(base: &str, tree: &Path) -> std::io::Result<()> {
    let number: u64 = rand::random();
    let text =
        format!("FROM {base} AS ran\nRUN true; echo {number} > /done\nFROM scratch\nCOPY --from=ran /done /done\n");
    dockerfile(tree, &text)
}
