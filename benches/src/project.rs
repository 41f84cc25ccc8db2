//! `kiln build` of a tree with many files: first, unchanged, and with one file changed.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;

use crate::client::Client;
use crate::report::{Figure, Latencies};

/// Builds a project of `files` files with the farm: once, then `repeats` times unchanged, then with one file edited.
pub fn builds(url: &str, files: usize, repeats: u32) -> anyhow::Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let client = Client::new(url)?;
    let tree = dir.path().join("tree");
    write_tree(&tree, files)?;
    let first = client.build(&tree, &[])?;
    let mut latencies = Latencies::default();
    let mut bytes = 0;
    for _ in 0..repeats {
        let again = client.build(&tree, &[])?;
        if again.misses != 0 {
            bail!("an unchanged build ran {} steps again", again.misses);
        }
        bytes += again.bytes_uploaded;
        latencies.record(again.whole);
    }
    std::fs::write(tree.join("d1/f1.txt"), format!("edited {}\n", rand::random::<u64>()))?;
    let edited = client.build(&tree, &[])?;
    let millis = |took: Duration| took.as_secs_f64() * 1000.0;
    let mut figures = vec![Figure::new(format!("kiln build of {files} files, first"), millis(first.whole), "ms")];
    let mut unchanged = latencies.figures(&format!("kiln build of {files} files, unchanged"));
    unchanged.truncate(2);
    unchanged[0].wanted = Some("at most 200".into());
    figures.extend(unchanged);
    figures.push(Figure::new("  bytes sent when unchanged", bytes as f64, "bytes").wanted("0"));
    figures.push(Figure::new("kiln build with one file edited", millis(edited.whole), "ms"));
    figures.push(
        Figure::new("  bytes sent then", edited.bytes_uploaded as f64, "bytes").wanted("that file and its directories"),
    );
    Ok(figures)
}

/// Writes `files` files of 100 bytes, a hundred in a directory.
pub(crate) fn write_files(tree: &Path, files: usize) -> std::io::Result<()> {
    for index in 0..files {
        let folder = tree.join(format!("d{}", index / 100));
        if index % 100 == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        std::fs::write(folder.join(format!("f{index}.txt")), format!("file {index} {}\n", "text ".repeat(20)))?;
    }
    Ok(())
}

fn write_tree(tree: &Path, files: usize) -> anyhow::Result<()> {
    write_files(tree, files.saturating_sub(1))?;
    std::fs::write(
        tree.join("kiln.toml"),
        "name = \"many\"\nversion = \"1\"\n\n[steps.count]\nrun = \"find . -type f | wc -l > count\"\noutputs = [\"count\"]\n\n[artifacts.count]\nfrom = \"count\"\nfiles = [\"count\"]\nkind = \"binary\"\n",
    )?;
    Ok(())
}
