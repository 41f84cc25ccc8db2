//! Small blobs, which share files: kills, damage, full disks, the bound, and directories of an earlier version.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use kiln_proto::digest::Digest;
use kiln_store::{BlobStore, Config, Error, Stores};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::support::{BLAKE3, SHA256, files, is_stored, noise, spot};
use super::{CHILD, on_a_small_disk, open, put, this_test};

/// Blobs of up to this many bytes, different for each seed.
fn batch(seed: u64, count: u64, most: usize) -> Vec<(Digest, Bytes)> {
    let blob = |at: u64| {
        let data = noise(seed + at, 1 + (at as usize * 7_919) % most);
        let function = if at.is_multiple_of(2) { SHA256 } else { BLAKE3 };
        (function.digest(&data), data.into())
    };
    (0..count).map(blob).collect()
}

async fn put_all(store: &dyn BlobStore, blobs: &[(Digest, Bytes)]) {
    store.put_many(blobs.to_vec()).await.into_iter().for_each(|result| result.unwrap());
}

fn digests(blobs: &[(Digest, Bytes)]) -> Vec<Digest> {
    blobs.iter().map(|(digest, _)| *digest).collect()
}

/// Bytes that blobs take on the disk.
fn blocks(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    files(&dir.join("blobs")).iter().map(|path| path.metadata().unwrap().blocks() * 512).sum()
}

async fn open_with(dir: &Path, max_bytes: u64, packed_bytes: u64) -> Stores {
    Stores::open(&Config { packed_bytes, ..Config::on_disk(dir.to_owned(), max_bytes) }).await.unwrap()
}

#[tokio::test]
async fn a_batch_of_small_blobs_is_stored_in_two_files_and_each_blob_has_its_own_result() {
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path(), 1 << 30);
    let mut blobs = batch(0, 500, 3_000);
    blobs.push((SHA256.digest(b"something"), Bytes::from_static(b"something else")));
    blobs.push(blobs[7].clone());
    let large = noise(9, 2_000_000);
    blobs.push((SHA256.digest(&large), large.into()));
    let results = stores.blobs.put_many(blobs.clone()).await;
    assert!(matches!(results[500], Err(Error::Mismatch { .. })));
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 502);
    assert_eq!(files(&dir.path().join("blobs")).len(), 3, "expected a pack, its list, and the large blob");
    blobs.remove(500);
    // Again, and most of them are there.
    blobs.extend(batch(1_000, 10, 3_000));
    put_all(&*stores.blobs, &blobs).await;
    let found = stores.blobs.get_many(&digests(&blobs)).await;
    for ((digest, data), found) in blobs.iter().zip(found) {
        assert_eq!(found.unwrap(), data, "{digest}");
    }
    let total: u64 = digests(&blobs).into_iter().collect::<HashSet<_>>().iter().map(|digest| digest.size).sum();
    assert_eq!(stores.blobs.bytes(), total);
}

/// The child's part: stores batches forever, and reports what is stored.
async fn store_for_ever(dir: &Path) {
    let stores = open(dir, 1 << 30);
    for round in 0.. {
        let seed = (u64::from(std::process::id()) << 32) + round * 1_000;
        put_all(&*stores.blobs, &batch(seed, 400, 5_000)).await;
        println!("\nBATCH {seed}");
    }
}

#[test]
fn after_kill_9_each_batch_that_was_acknowledged_is_there_and_no_blob_is_half_visible() {
    const NAME: &str = "packs::after_kill_9_each_batch_that_was_acknowledged_is_there_and_no_blob_is_half_visible";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(dir) = std::env::var_os(CHILD) {
        return runtime.block_on(store_for_ever(Path::new(&dir)));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut seeds: Vec<u64> = Vec::new();
    for round in 0..5 {
        let mut child = this_test(NAME, dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note =
            |line: String| seeds.extend(line.strip_prefix("BATCH ").map(|seed| seed.parse::<u64>().unwrap()));
        lines.by_ref().take(20 + round * 3).for_each(|line| note(line.unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it reported before it died is also stored; its last line may be incomplete.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        rest.into_iter().rev().skip(1).for_each(&mut note);
        runtime.block_on(async {
            let stores = open(dir.path(), 1 << 30);
            for seed in &seeds {
                let blobs = batch(*seed, 400, 5_000);
                assert_eq!(stores.blobs.find_missing(&digests(&blobs)).await.unwrap(), []);
                for ((_, data), found) in blobs.iter().zip(stores.blobs.get_many(&digests(&blobs)).await) {
                    assert_eq!(found.unwrap(), data);
                }
            }
            // The batch that it was storing: what is listed is whole.
            let last = seeds.last().unwrap() + 1_000;
            for (digest, data) in batch(last, 400, 5_000) {
                if stores.blobs.find_missing(&[digest]).await.unwrap().is_empty() {
                    assert_eq!(stores.blobs.get(&digest).await.unwrap(), data);
                }
            }
        });
    }
    assert!(seeds.len() > 30, "{} batches", seeds.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Bytes of the packs are overwritten, cut off, or replaced while the store is closed.
    #[test]
    fn damage_of_packs_costs_only_the_blobs_that_it_hits_and_no_wrong_byte_is_served(
        seed: u64, hits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..200_usize), 1..8)
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let blobs = batch(seed % 1_000_000, 300, 2_000);
        runtime.block_on(async { put_all(&*open(dir.path(), 1 << 30).blobs, &blobs).await });
        let mut packs = files(&dir.path().join("blobs/packs"));
        packs.sort();
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut hit_bytes = 0;
        for (which, at, count) in &hits {
            let path = which.get(&packs);
            let mut bytes = std::fs::read(path).unwrap();
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + count);
            rng.fill(&mut bytes[at..end]);
            std::fs::write(path, bytes).unwrap();
            hit_bytes += count;
        }
        runtime.block_on(async {
            let stores = open(dir.path(), 1 << 30);
            let mut lost = 0;
            for ((digest, data), found) in blobs.iter().zip(stores.blobs.get_many(&digests(&blobs)).await) {
                match found {
                    Ok(found) => assert_eq!(found, data, "{digest}"),
                    Err(Error::NotFound { .. }) => lost += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            // A hit touches at most one blob, or record, for each byte, and a few where it begins and ends.
            assert!(lost <= hit_bytes / 64 + 4 * hits.len() + 8, "{lost} of 300 blobs were lost to {hit_bytes} bytes");
            let missing = stores.blobs.find_missing(&digests(&blobs)).await.unwrap();
            assert_eq!(missing.len(), lost, "expected what was lost to be missing from now on");
            put_all(&*stores.blobs, &blobs).await;
            assert!(stores.blobs.get_many(&digests(&blobs)).await.iter().all(Result::is_ok));
        });
    }
}

/// The child's part: has its own disk of 8 MiB.
async fn fill_with_small_blobs(dir: &Path) {
    let stores = open(dir, 1 << 30);
    let kept = batch(0, 100, 4_000);
    put_all(&*stores.blobs, &kept).await;
    let mut stored = kept.clone();
    let error = loop {
        let seed = 1_000 * stored.len() as u64;
        let blobs = batch(seed, 200, 4_000);
        let results = stores.blobs.put_many(blobs.clone()).await;
        stored.extend(blobs.into_iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(blob, _)| blob));
        if let Some(error) = results.into_iter().find_map(Result::err) {
            break error;
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("is full"), "{error}");
    let total: u64 = stored.iter().map(|(digest, _)| digest.size).sum();
    assert_eq!(stores.blobs.bytes(), total, "expected nothing else to be counted");
    for ((digest, data), found) in stored.iter().zip(stores.blobs.get_many(&digests(&stored)).await) {
        assert_eq!(found.unwrap(), data, "{digest}");
    }
    drop(stores);
    // With a lower limit there is space again.
    let stores = open(dir, 3 << 20);
    assert!(blocks(dir) <= 5 << 20, "{} bytes on the disk", blocks(dir));
    put_all(&*stores.blobs, &kept).await;
    for (_, data) in &kept {
        put(&*stores.blobs, data).await;
    }
    println!("\nDISK FILLED");
}

#[test]
fn a_disk_that_small_blobs_filled_is_an_error_and_the_store_goes_on() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return tokio::runtime::Runtime::new().unwrap().block_on(fill_with_small_blobs(Path::new(&dir)));
    }
    let dir = tempfile::tempdir().unwrap();
    on_a_small_disk("packs::a_disk_that_small_blobs_filled_is_an_error_and_the_store_goes_on", dir.path());
}

#[tokio::test]
async fn small_blobs_of_an_earlier_version_are_found_used_and_evicted_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (batch(0, 50, 4_000), batch(1_000, 50, 4_000));
    put_all(&*open_with(dir.path(), 1 << 30, 0).await.blobs, &old).await;
    {
        let stores = open(dir.path(), 1 << 30);
        assert_eq!(stores.blobs.find_missing(&digests(&old)).await.unwrap(), []);
        put_all(&*stores.blobs, &old).await;
        put_all(&*stores.blobs, &new).await;
        let is_packed = |digest: &Digest| spot(dir.path(), digest).unwrap().path.parent().unwrap().ends_with("packs");
        assert!(!old.iter().any(|(digest, _)| is_packed(digest)) && new.iter().all(|(digest, _)| is_packed(digest)));
    }
    // The other way round: a store that packs nothing has what was packed.
    let stores = open_with(dir.path(), 1 << 30, 0).await;
    for ((_, data), found) in
        old.iter().chain(&new).zip(stores.blobs.get_many(&digests(&[old.clone(), new.clone()].concat())).await)
    {
        assert_eq!(found.unwrap(), data);
    }
    drop(stores);
    let stores = open(dir.path(), 1_000);
    assert!(stores.blobs.bytes() <= 1_000);
    let left = old.iter().chain(&new).filter(|(digest, _)| is_stored(dir.path(), digest)).count();
    assert!(left < 5, "{left} blobs are left");
}

/// First small blobs, then large ones, then small ones again: each displaces the other, on the disk as well.
#[tokio::test]
async fn the_disk_holds_no_more_than_the_bound_whatever_displaces_what() {
    const MAX: u64 = 24 << 20;
    const SLACK: u64 = 3 << 20;
    let dir = tempfile::tempdir().unwrap();
    let stores = open(dir.path(), MAX);
    let check = |what: &str| {
        let found = blocks(dir.path());
        assert!(found <= MAX + SLACK, "{found} bytes on the disk after {what}");
        assert!(stores.blobs.bytes() <= MAX + SLACK, "{} bytes counted after {what}", stores.blobs.bytes());
    };
    for round in 0..3 {
        for seed in 0..12 {
            put_all(&*stores.blobs, &batch((round * 100 + seed) * 10_000, 1_500, 3_000)).await;
            check("small blobs");
        }
        for seed in 0..15 {
            put(&*stores.blobs, &noise(1 << 40 | round << 8 | seed, 3 << 20)).await;
            check("large blobs");
        }
    }
    // Every other blob is used all the time, so that what is evicted lies between what stays.
    let mut used: Vec<Digest> = Vec::new();
    for seed in 0..40 {
        let blobs = batch((1_000 + seed) * 10_000, 1_000, 3_000);
        put_all(&*stores.blobs, &blobs).await;
        used.extend(digests(&blobs).into_iter().step_by(4));
        used.drain(..used.len().saturating_sub(3_000));
        let missing = stores.blobs.find_missing(&used).await.unwrap();
        used.retain(|digest| !missing.contains(digest));
        check("blobs between others");
    }
    assert!(used.len() > 1_000, "expected what is used to stay, {} did", used.len());
}
