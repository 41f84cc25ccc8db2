//! A large image of which 1 MB changed: rebuilt, and pushed to a registry on this machine.

use anyhow::{Context, bail};

use crate::client::Client;
use crate::registry::Registry;
use crate::report::{Figure, Latencies};

/// Size of the dependencies in MB, in files of ten.
const DEPENDENCIES_MB: usize = 299;
/// Size of the project's own file.
const OWN_BYTES: usize = 1_000_000;

/// Builds and pushes an image of 300 MB with the farm, then `repeats` times with its own 1 MB changed.
///
/// # Errors
/// If `docker-registry` is missing, or a build fails.
pub fn pushes(url: &str, repeats: u32) -> anyhow::Result<Vec<Figure>> {
    let registry = Registry::start()?;
    let (dir, client) = (tempfile::tempdir()?, Client::new(url)?);
    std::fs::write(dir.path().join("kiln.toml"), project())?;
    let mut pushes = Vec::new();
    for round in 0..=repeats {
        let own: Vec<u8> = (0..OWN_BYTES).map(|_| rand::random()).collect();
        std::fs::write(dir.path().join("own.bin"), own)?;
        pushes.push(client.build(dir.path(), &["--push", &format!("{}/bench/image:{round}", registry.name)])?);
    }
    let (first, again) = pushes.split_first().context("nothing was pushed")?;
    let (mut delivered, mut whole) = (Latencies::default(), Latencies::default());
    for push in again {
        delivered.record(push.delivered.context("nothing was pushed")?);
        whole.record(push.whole);
        if push.bytes_pushed > 2 * OWN_BYTES as u64 {
            bail!("a push of 1 MB that changed sent {} bytes", push.bytes_pushed);
        }
    }
    let sent = again.iter().map(|push| push.bytes_pushed).max().unwrap_or_default();
    let first = first.delivered.context("nothing was pushed")?.as_secs_f64() * 1000.0;
    Ok(vec![
        Figure::new("an image of 300 MB made and pushed, first", first, "ms"),
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
