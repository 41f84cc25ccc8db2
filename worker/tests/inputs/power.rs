//! The cache of inputs on a disk that loses, truncates or garbles whatever was not synced when the power was cut.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_proto::digest::Digest;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::support::Cas;
use super::{Seen, open, seen, wide};

/// Cuts the power of a cache that was in use and boots the machine again. Only the note that the cache was in use had
/// been synced, so anything may have happened to the rest.
fn cut(cache: &Path, rng: &mut SmallRng) {
    fs::write(cache.join("session"), format!("boot {}", rng.next_u64())).unwrap();
    ["files", "units"].iter().for_each(|part| lose(&cache.join(part), rng));
}

fn lose(directory: &Path, rng: &mut SmallRng) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (path, data) = (entry.path(), entry.metadata().unwrap());
        match rng.random_range(0..10) {
            // Its name was not yet on the disk.
            0 if data.is_dir() => fs::remove_dir_all(&path).unwrap(),
            0 => fs::remove_file(&path).unwrap(),
            // It was renamed, but is found under its former name.
            1 => fs::rename(&path, directory.join(format!("tmp-{}", rng.next_u64()))).unwrap(),
            _ if data.is_dir() => {
                let writable = fs::Permissions::from_mode(data.permissions().mode() | 0o700);
                fs::set_permissions(&path, writable).unwrap();
                lose(&path, rng);
            }
            2..5 if data.is_file() => garble(&path, rng),
            _ => {}
        }
    }
}

/// Loses bytes of a file; its time and mode may stay the same.
fn garble(path: &Path, rng: &mut SmallRng) {
    let data = path.metadata().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..3) {
        0 => bytes.truncate(at),
        1 => bytes[at..].fill(0),
        _ => rng.fill_bytes(&mut bytes[at..]),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, data.permissions()).unwrap();
    if rng.random_bool(0.8) {
        fs::File::open(path).unwrap().set_modified(data.modified().unwrap()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn no_input_is_used_that_a_power_cut_damaged(seed in any::<u64>(), cuts in 1..3_usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let ((cas, client), dir) = (Cas::start().await, tempfile::tempdir().unwrap());
            let mut rng = SmallRng::seed_from_u64(seed);
            // Trees that share units and files.
            let trees: Vec<Digest> = [None, Some("d0/f1"), Some("d1/f70")]
                .into_iter()
                .map(|edited| cas.tree(&wide(&cas, 2, 80, edited)))
                .collect();
            let elsewhere = tempfile::tempdir().unwrap();
            let (whole, mut expected) = (open(elsewhere.path()), Vec::<Seen>::new());
            for root in &trees {
                expected.push(seen(&whole.fetch(&client, root).await.unwrap()));
            }
            for _ in 0..=cuts {
                let inputs = open(dir.path());
                for (root, expected) in trees.iter().zip(&expected).filter(|_| rng.random_bool(0.8)) {
                    assert_eq!(&seen(&inputs.fetch(&client, root).await.unwrap()), expected);
                }
                drop(inputs);
                cut(&dir.path().join("cache"), &mut rng);
            }
        });
    }
}
