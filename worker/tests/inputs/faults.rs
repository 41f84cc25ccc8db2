//! The cache of inputs after power cuts, with cancellations, and with slow parts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_trees::tree::Tree;

use super::support::Cas;
use super::{open, open_with, seen, wide};

/// Files below a directory, by path.
fn files(at: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// Waits for another thread.
fn until(what: &str, done: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "expected {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Changes the content of a file but keeps its size and time.
fn damage(path: &Path) {
    let (size, time) = {
        let data = path.metadata().unwrap();
        (data.len() as usize, data.modified().unwrap())
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, vec![0; size]).unwrap();
    std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_nothing_is_taken_for_whole_by_its_name() {
    let ((cas, client), dir) = (Cas::start().await, tempfile::tempdir().unwrap());
    let root = cas.tree(&wide(&cas, 2, 100, None));
    let expected = {
        let inputs = open(dir.path());
        seen(&inputs.fetch(&client, &root).await.unwrap())
    };
    let cache = dir.path().join("cache");
    let fetched = cas.all_reads();
    // The process was killed but the machine continues: everything is there.
    drop(open(dir.path()).fetch(&client, &root).await.unwrap());
    assert!(cas.all_reads() - fetched <= 3, "expected nothing but directories to be read again");
    // The machine lost power: a unit lost a file, and a file of the cache lost its content.
    std::fs::write(cache.join("session"), "another-boot").unwrap();
    let lost = files(&cache.join("units")).into_iter().next().unwrap();
    std::fs::remove_file(lost).unwrap();
    let damaged = files(&cache.join("files")).into_iter().next().unwrap();
    damage(&damaged);
    let before = cas.all_reads();
    let inputs = open(dir.path());
    assert_eq!(seen(&inputs.fetch(&client, &root).await.unwrap()), expected);
    assert!(cas.all_reads() - before <= 4, "expected only the damaged file to be fetched");
    // After an orderly shutdown, the next start trusts what it finds.
    inputs.close();
    assert_eq!(std::fs::read_to_string(cache.join("session")).unwrap(), "closed");
    let units = std::fs::read_dir(cache.join("units")).unwrap().count();
    drop(open(dir.path()));
    assert_eq!(std::fs::read_dir(cache.join("units")).unwrap().count(), units);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maker_that_is_cancelled_leaves_no_part_of_a_unit() {
    let ((cas, client), dir) = (Cas::start().await, tempfile::tempdir().unwrap());
    let inputs = open(dir.path());
    for round in 0..12_u32 {
        let root = cas.tree(&wide(&cas, 1, 1_500, Some(&format!("d0/f{round}"))));
        let (again, caller) = (inputs.clone(), client.clone());
        let first = tokio::spawn(async move { again.fetch(&caller, &root).await.map(drop) });
        // At a different time in each round: before, while and after the unit is made.
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 12)).await;
        first.abort();
        let second = inputs.fetch(&client, &root).await.unwrap();
        let (third, shared) = (inputs.fetch(&client, &root).await.unwrap(), seen(&second));
        assert_eq!(shared.len(), 1_501, "round {round}");
        assert_eq!(seen(&third), shared);
    }
    let left = || {
        std::fs::read_dir(dir.path().join("cache/units"))
            .unwrap()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("tmp-"))
    };
    until("no temporary to be left", || !left());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_fetch_holds_up_neither_eviction_nor_other_fetches() {
    let ((cas, client), dir) = (Cas::start().await, tempfile::tempdir().unwrap());
    let inputs = open_with(dir.path(), 100_000);
    let tree = |name: &str, bytes: usize| {
        let mut tree = Tree::default();
        tree.insert(name, cas.file(name.repeat(bytes / name.len()), false)).unwrap();
        tree
    };
    let slow = tree("slow", 40_000);
    cas.withhold(Some(super::F.digest("slow".repeat(10_000).as_bytes())));
    let (root, again, caller) = (cas.tree(&slow), inputs.clone(), client.clone());
    let waiting = tokio::spawn(async move { again.fetch(&caller, &root).await.map(|tree| seen(&tree)) });
    let others = async {
        for name in ["one", "two", "three", "four", "five"] {
            drop(inputs.fetch(&client, &cas.tree(&tree(name, 60_000))).await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(60), others).await.expect("expected the others to continue");
    assert!(inputs.bytes() <= 120_000, "expected space to be freed, found {} bytes", inputs.bytes());
    assert!(!waiting.is_finished());
    cas.withhold(None);
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_download_leaves_no_temporary() {
    let ((cas, client), dir) = (Cas::start().await, tempfile::tempdir().unwrap());
    let inputs = open(dir.path());
    let mut tree = Tree::default();
    let (large, other) = (vec![7; 3 << 20], vec![8; 3 << 20]);
    tree.insert("large", cas.file(&large, false)).unwrap();
    tree.insert("other", cas.file(&other, false)).unwrap();
    cas.withhold(Some(super::F.digest(&large)));
    let (root, again, caller) = (cas.tree(&tree), inputs.clone(), client.clone());
    let fetch = tokio::spawn(async move { again.fetch(&caller, &root).await.map(drop) });
    let there = || files(&dir.path().join("cache/files")).len();
    until("the other file to be on disk", || there() > 0);
    fetch.abort();
    assert!(fetch.await.is_err());
    let temporaries = || {
        let is_temporary = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("tmp-");
        files(&dir.path().join("cache/files")).iter().filter(|path| is_temporary(path)).count()
    };
    until("no temporary to be left", || temporaries() == 0);
}
