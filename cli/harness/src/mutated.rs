//! A short form of fuzzing on stable Rust: every seed unchanged, then seeds that were cut, joined and changed at
//! random.
//!
//! Each run prints its seed; `KILN_FUZZ_SEED=…` repeats the run, and `KILN_FUZZ_CASES=…` makes it longer.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Default number of inputs for each target.
const CASES: u32 = 3_000;

/// One change of an input. Positions are fractions of its length, so that they apply to any seed.
#[derive(Debug, Clone)]
enum Change {
    Set(f64, u8),
    Flip(f64, u8),
    Insert(f64, Vec<u8>),
    Remove(f64, usize),
    Repeat(f64, usize),
    Cut(f64),
    Join(prop::sample::Index, f64),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0.0..1.0;
    let telling =
        prop::sample::select(vec![0x00, 0x01, 0x7f, 0x80, 0xff, b'/', b'.', b'"', b'[', b'{', b'\n', b'0', b'9']);
    prop_oneof![
        (at(), prop_oneof![any::<u8>(), telling]).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), prop::collection::vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1..64_usize).prop_map(|(at, bytes)| Change::Remove(at, bytes)),
        (at(), 1..64_usize).prop_map(|(at, bytes)| Change::Repeat(at, bytes)),
        at().prop_map(Change::Cut),
        (any::<prop::sample::Index>(), at()).prop_map(|(other, at)| Change::Join(other, at)),
    ]
}

fn place(data: &[u8], part: f64) -> usize {
    (data.len() as f64 * part) as usize
}

impl Change {
    fn apply(&self, data: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        match self {
            Self::Set(part, byte) => {
                let at = place(data, *part);
                data.get_mut(at).into_iter().for_each(|old| *old = *byte);
            }
            Self::Flip(part, bit) => {
                let at = place(data, *part);
                data.get_mut(at).into_iter().for_each(|old| *old ^= 1 << bit);
            }
            Self::Insert(part, bytes) => {
                let at = place(data, *part);
                data.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(part, bytes) => {
                let at = place(data, *part);
                data.drain(at..(at + bytes).min(data.len()));
            }
            Self::Repeat(part, bytes) => {
                let at = place(data, *part);
                let again = data[at..(at + bytes).min(data.len())].to_vec();
                data.splice(at..at, again);
            }
            Self::Cut(part) => data.truncate(place(data, *part)),
            Self::Join(other, part) => {
                let other = &seeds[other.index(seeds.len())];
                data.truncate(place(data, *part));
                data.extend_from_slice(&other[place(other, *part)..]);
            }
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a target on the seeds in a directory, and on mutations of them.
pub fn run(name: &str, seeds: &Path, target: fn(&[u8])) {
    let mut files: Vec<_> = std::fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty(), "expected seeds for `{name}`");
    seeds.iter().for_each(|seed| target(seed));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("KILN_FUZZ_SEED").unwrap_or_else(now);
    let cases = number("KILN_FUZZ_CASES").map_or(CASES, |cases| cases as u32);
    eprintln!("{name}: {} seeds, then {cases} inputs of KILN_FUZZ_SEED={seed}", seeds.len());
    let mut start = [0; 32];
    start[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &start));
    let input = (any::<prop::sample::Index>(), prop::collection::vec(change(), 1..6)).prop_map(|(index, changes)| {
        let mut data = seeds[index.index(seeds.len())].clone();
        changes.iter().for_each(|change| change.apply(&mut data, &seeds));
        data
    });
    if let Err(error) = runner.run(&input, |data| {
        target(&data);
        Ok(())
    }) {
        panic!("`{name}` with KILN_FUZZ_SEED={seed}: {error}");
    }
}
