//! A context of many files: nothing changed, and one file edited under `COPY`.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;

use super::docker::Pairs;
use super::{Bench, dockerfile, project};
use crate::client::{Client, Run};
use crate::project::write_files;
use crate::report::Figure;

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<Vec<Figure>> {
    bench.fresh_worker("context").await?;
    let mut figures = unchanged(bench)?;
    figures.extend(edited(bench)?);
    Ok(figures)
}

/// Twenty instructions of which none changed.
fn unchanged(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let dir = project()?;
    write_files(dir.path(), bench.options.files)?;
    let mut text = format!("FROM {}\nENV LANG=C\nLABEL team=bench\nWORKDIR /app\n", bench.base);
    (0..5)
        .for_each(|number| text.push_str(&format!("COPY d{number} d{number}\nRUN ls d{number} > /listed-{number}\n")));
    text.push_str("RUN mkdir /data\nCOPY . .\nRUN find . -type f | wc -l > /count\nEXPOSE 80\nUSER 1000\nCMD [\"cat\", \"/count\"]\n");
    dockerfile(dir.path(), &text)?;
    let client = Client::new(&bench.farm.url)?;
    both(bench, &client, dir.path())?;
    let (mut pairs, mut sent) = (Pairs::default(), 0);
    for _ in 0..bench.options.rounds {
        let (run, docker) = both(bench, &client, dir.path())?;
        if run.misses != 0 {
            bail!("an unchanged build ran {} instructions again", run.misses);
        }
        sent += run.bytes_uploaded;
        pairs.record(run.whole, docker);
    }
    let mut figures = pairs.figures("20 instructions, nothing changed", "at most 100");
    figures.push(Figure::new("  bytes sent", sent as f64, "bytes").wanted("0"));
    Ok(figures)
}

/// One file edited.
fn edited(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let dir = project()?;
    write_files(dir.path(), bench.options.files)?;
    dockerfile(dir.path(), "FROM scratch\nCOPY . /app\n")?;
    let client = Client::new(&bench.farm.url)?;
    both(bench, &client, dir.path())?;
    let mut pairs = Pairs::default();
    for _ in 0..bench.options.rounds {
        std::fs::write(dir.path().join("d1/f101.txt"), rand::random::<u64>().to_string())?;
        let (run, docker) = both(bench, &client, dir.path())?;
        pairs.record(run.whole, docker);
    }
    Ok(pairs.figures("one file edited under `COPY`", "at most 250"))
}

fn both(bench: &Bench, client: &Client, tree: &Path) -> anyhow::Result<(Run, Option<Duration>)> {
    let run = client.build(tree, &[])?;
    Ok((run, bench.docker.as_ref().map(|docker| docker.build(tree, &[])).transpose()?))
}
