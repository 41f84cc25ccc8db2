//! `kiln build` of a tree with many files: first, unchanged, and with one file changed.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::report::{Figure, Latencies};

/// Builds a project of `files` files with the farm: once, then `repeats` times unchanged, then with one file edited.
pub fn builds(url: &str, files: usize, repeats: u32) -> anyhow::Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let cache = tempfile::tempdir()?;
    let tree = dir.path().join("tree");
    write_tree(&tree, files)?;
    let first = build(url, &tree, cache.path())?;
    let mut latencies = Latencies::default();
    let mut bytes = 0;
    for _ in 0..repeats {
        let again = build(url, &tree, cache.path())?;
        if again.misses != 0 {
            bail!("an unchanged build ran {} steps again", again.misses);
        }
        bytes += again.bytes_uploaded;
        latencies.record(again.took);
    }
    std::fs::write(tree.join("d1/f1.txt"), format!("edited {}\n", rand::random::<u64>()))?;
    let edited = build(url, &tree, cache.path())?;
    let millis = |took: Duration| took.as_secs_f64() * 1000.0;
    let mut figures = vec![Figure::new(format!("kiln build of {files} files, first"), millis(first.took), "ms")];
    let mut unchanged = latencies.figures(&format!("kiln build of {files} files, unchanged"));
    unchanged.truncate(2);
    unchanged[0].wanted = Some("at most 200".into());
    figures.extend(unchanged);
    figures.push(Figure::new("  bytes sent when unchanged", bytes as f64, "bytes").wanted("0"));
    figures.push(Figure::new("kiln build with one file edited", millis(edited.took), "ms"));
    figures.push(
        Figure::new("  bytes sent then", edited.bytes_uploaded as f64, "bytes").wanted("that file and its directories"),
    );
    Ok(figures)
}

fn write_tree(tree: &Path, files: usize) -> anyhow::Result<()> {
    for index in 0..files.saturating_sub(1) {
        let folder = tree.join(format!("d{}", index / 100));
        if index % 100 == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        std::fs::write(folder.join(format!("f{index}.txt")), format!("file {index} {}\n", "text ".repeat(20)))?;
    }
    std::fs::write(
        tree.join("kiln.toml"),
        "name = \"many\"\nversion = \"1\"\n\n[steps.count]\nrun = \"find . -type f | wc -l > count\"\noutputs = [\"count\"]\n\n[artifacts.count]\nfrom = \"count\"\nfiles = [\"count\"]\nkind = \"binary\"\n",
    )?;
    Ok(())
}

struct Run {
    took: Duration,
    misses: usize,
    bytes_uploaded: u64,
}

fn build(url: &str, tree: &Path, cache: &Path) -> anyhow::Result<Run> {
    let began = Instant::now();
    let output = Command::new(crate::farm::binary("kiln")?)
        .args(["build", "--progress", "json", "--farm", url])
        .arg(tree)
        .env("XDG_CACHE_HOME", cache)
        .current_dir(tree)
        .output()?;
    let took = began.elapsed();
    if !output.status.success() {
        bail!("`kiln build` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let (mut misses, mut bytes_uploaded) = (0, None);
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: serde_json::Value = serde_json::from_slice(line)?;
        match event["type"].as_str() {
            Some("step_finished") if event["cache"] == "miss" => misses += 1,
            Some("build_finished") => bytes_uploaded = event["bytes_uploaded"].as_u64(),
            _ => {}
        }
    }
    Ok(Run { took, misses, bytes_uploaded: bytes_uploaded.context("no `build_finished` with `bytes_uploaded`")? })
}
