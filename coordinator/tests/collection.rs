//! Garbage collection: by age, by size, while work runs, and across crashes. Time is a parameter.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures::FutureExt;
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_store::{Clock, Config, Report, Stores};
use proptest::prelude::*;
use prost::Message;
use support::{SHA256, is_stored as is_there, noise};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
/// Start of the tests, in seconds.
const BEGIN: u64 = 1_800_000_000;
/// How long unused content is kept in the tests.
const LIFE: u64 = 10 * DAY;
/// How much older than its true age a blob may seem after a restart that lost only time stamps.
const SAVE_EVERY: u64 = 15 * 60;

/// Seconds that pass in a test.
#[derive(Debug, Clone)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(BEGIN)))
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::of(move || UNIX_EPOCH + Duration::from_secs(time.now()))
    }
}

fn open(dir: &Path, max_bytes: u64, time: &Time) -> Stores {
    let config =
        Config { life: Duration::from_secs(LIFE), clock: time.clock(), ..Config::on_disk(dir.to_owned(), max_bytes) };
    Stores::open(&config).now_or_never().expect("expected the disk alone to open at once").unwrap()
}

fn data(seed: u8) -> Vec<u8> {
    noise(u64::from(seed), usize::from(seed) * 50 + 100)
}

fn digest(seed: u8) -> Digest {
    SHA256.digest(&data(seed))
}

fn action(number: u8) -> Digest {
    SHA256.digest(&[number])
}

async fn put(stores: &Stores, data: Vec<u8>) -> Digest {
    let digest = SHA256.digest(&data);
    stores.blobs.put(&digest, data.into()).await.unwrap();
    digest
}

/// A result that references blobs in every possible way, and all that it references. These blobs are stored.
async fn put_result(stores: &Stores, number: u8, seeds: &[u8]) -> Vec<Digest> {
    let mut named = Vec::new();
    let mut result = reapi::ActionResult::default();
    for (at, seed) in seeds.iter().enumerate() {
        let file = put(stores, data(*seed)).await;
        named.push(file);
        let node = reapi::FileNode { name: "f".into(), digest: Some(file.to_wire()), ..Default::default() };
        let directory = reapi::Directory { files: vec![node], ..Default::default() };
        match at % 4 {
            0 => result.output_files.push(reapi::OutputFile { digest: Some(file.to_wire()), ..Default::default() }),
            1 => {
                let tree = reapi::Tree { root: Some(reapi::Directory::default()), children: vec![directory] };
                let tree = put(stores, tree.encode_to_vec()).await;
                named.push(tree);
                let tree_digest = Some(tree.to_wire());
                result.output_directories.push(reapi::OutputDirectory { tree_digest, ..Default::default() });
            }
            2 => {
                let below = put(stores, directory.encode_to_vec()).await;
                let node = reapi::DirectoryNode { name: "d".into(), digest: Some(below.to_wire()) };
                let root = reapi::Directory { directories: vec![node], ..Default::default() };
                let root = put(stores, root.encode_to_vec()).await;
                named.extend([below, root]);
                let root_directory_digest = Some(root.to_wire());
                result.output_directories.push(reapi::OutputDirectory { root_directory_digest, ..Default::default() });
            }
            _ => result.stdout_digest = Some(file.to_wire()),
        }
    }
    stores.actions.put("", &action(number), result).await.unwrap();
    named
}

async fn collect(stores: &Stores) -> Report {
    stores.collector.collect().await.unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Find(u8),
    Read(u8),
    PutResult(u8, Vec<u8>),
    Hit(u8),
    Remove(u8),
    Pass(u64),
    Collect,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let seed = || 0..24_u8;
    prop_oneof![
        4 => seed().prop_map(Step::Put),
        2 => seed().prop_map(Step::Find),
        2 => seed().prop_map(Step::Read),
        4 => (0..6_u8, prop::collection::vec(0..24_u8, 0..6)).prop_map(|(number, seeds)| Step::PutResult(number, seeds)),
        3 => (0..6_u8).prop_map(Step::Hit),
        1 => (0..6_u8).prop_map(Step::Remove),
        4 => (1..4 * DAY).prop_map(Step::Pass),
        3 => Just(Step::Collect),
        1 => Just(Step::Restart),
    ]
}

/// The last uses, in seconds.
#[derive(Default)]
struct Model {
    blobs: HashMap<Digest, u64>,
    results: HashMap<u8, (u64, Vec<Digest>)>,
}

impl Model {
    fn used(&mut self, digests: &[Digest], now: u64) {
        self.blobs.extend(digests.iter().map(|digest| (*digest, now)));
    }
}

/// A directory in memory if possible: the steps sync the disk often, and there are no power cuts here.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs the steps; `check` looks at the stores after each.
async fn run(steps: Vec<Step>, max_bytes: u64, check: impl AsyncFn(&Step, &Path, &Stores, &mut Model, u64)) {
    let dir = scratch();
    let (time, mut model) = (Time::new(), Model::default());
    let mut stores = open(dir.path(), max_bytes, &time);
    for step in steps {
        time.pass(1);
        let now = time.now();
        match &step {
            Step::Put(seed) => {
                let digest = put(&stores, data(*seed)).await;
                model.used(&[digest], now);
            }
            Step::Find(seed) => {
                if stores.blobs.find_missing(&[digest(*seed)]).await.unwrap().is_empty() {
                    model.used(&[digest(*seed)], now);
                }
            }
            Step::Read(seed) => {
                if let Ok(found) = stores.blobs.get(&digest(*seed)).await {
                    assert_eq!(found, data(*seed));
                    model.used(&[digest(*seed)], now);
                }
            }
            Step::PutResult(number, seeds) => {
                let named = put_result(&stores, *number, seeds).await;
                model.used(&named, now);
                if named.iter().all(|digest| is_there(dir.path(), digest)) {
                    model.results.insert(*number, (now, named));
                } else {
                    // It was stored without a blob that later ones evicted: it was never complete.
                    stores.actions.remove("", &action(*number)).await.unwrap();
                    model.results.remove(number);
                }
            }
            Step::Hit(number) => {
                if stores.cached_result("", &action(*number)).await.unwrap().is_some() {
                    let (used, named) = model.results.get_mut(number).expect("expected only results that were put");
                    *used = now;
                    let named = named.clone();
                    model.used(&named, now);
                }
            }
            Step::Remove(number) => {
                stores.actions.remove("", &action(*number)).await.unwrap();
                model.results.remove(number);
            }
            Step::Pass(seconds) => time.pass(*seconds),
            Step::Collect => {
                collect(&stores).await;
            }
            Step::Restart => {
                drop(stores);
                stores = open(dir.path(), max_bytes, &time);
            }
        }
        check(&step, dir.path(), &stores, &mut model, time.now()).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn with_room_everything_used_within_a_life_stays_and_everything_else_goes(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(steps, 1 << 30, async |step, dir, stores, model, now| {
            for (number, (used, named)) in &model.results {
                let found = stores.actions.get("", &action(*number)).await.unwrap();
                if now - used <= LIFE {
                    assert!(found.is_some(), "expected result {number} to stay, used {} h ago", (now - used) / HOUR);
                    for digest in named {
                        assert!(is_there(dir, digest), "expected {digest} to stay, which result {number} names");
                    }
                } else if matches!(step, Step::Collect) {
                    assert!(found.is_none(), "expected result {number} to go, used {} h ago", (now - used) / HOUR);
                }
            }
            for (digest, used) in &model.blobs {
                if now - used <= LIFE {
                    assert!(is_there(dir, digest), "expected {digest} to stay, used {} h ago", (now - used) / HOUR);
                } else if matches!(step, Step::Collect) && now - used > LIFE + SAVE_EVERY {
                    assert!(!is_there(dir, digest), "expected {digest} to go, used {} h ago", (now - used) / HOUR);
                }
            }
            if matches!(step, Step::Collect) {
                model.results.retain(|_, (used, _)| now - *used <= LIFE);
                model.blobs.retain(|digest, _| is_there(dir, digest));
            }
        }));
    }

    #[test]
    fn without_room_the_bound_holds_and_no_result_stays_of_which_a_blob_is_missing(
        steps in prop::collection::vec(step(), 1..100)
    ) {
        const MAX: u64 = 9_000;
        tokio::runtime::Runtime::new().unwrap().block_on(run(steps, MAX, async |step, dir, stores, model, _| {
            let held: u64 = (0..=u8::MAX).map(digest).filter(|digest| is_there(dir, digest)).map(|digest| digest.size).sum();
            assert!(held <= MAX, "expected at most {MAX} bytes, found {held}");
            let counted = stores.blobs.bytes();
            assert!(held <= counted && counted <= MAX, "{held} bytes are there, and {counted} are counted");
            if matches!(step, Step::Restart) {
                return;
            }
            for (number, (_, named)) in &model.results {
                if stores.actions.get("", &action(*number)).await.unwrap().is_some() {
                    let missing: Vec<_> = named.iter().filter(|digest| !is_there(dir, digest)).collect();
                    assert!(missing.is_empty(), "expected result {number} to be removed with {missing:?}, after {step:?}");
                }
            }
        }));
    }
}

#[tokio::test]
async fn what_running_work_used_stays_until_the_work_ends_and_what_was_just_used_stays_an_hour() {
    let (dir, time) = (tempfile::tempdir().unwrap(), Time::new());
    let stores = open(dir.path(), 1 << 30, &time);
    let (before, input) = (put(&stores, data(1)).await, put(&stores, data(2)).await);
    time.pass(2 * HOUR);
    assert!(stores.blobs.find_missing(&[input]).await.unwrap().is_empty());
    time.pass(HOUR);
    let hold = stores.in_use.begin();
    time.pass(LIFE);
    let later = stores.in_use.begin();
    let report = collect(&stores).await;
    assert_eq!(
        (report.disk.blobs, report.disk.bytes),
        (1, before.size),
        "expected only what nobody holds to be removed"
    );
    assert!(is_there(dir.path(), &input));
    drop(hold);
    assert_eq!(collect(&stores).await.disk.blobs, 1);
    drop(later);

    // A configured lifetime of less than an hour does not remove blobs earlier than after an hour.
    let dir = tempfile::tempdir().unwrap();
    let config =
        Config { life: Duration::from_secs(1), clock: time.clock(), ..Config::on_disk(dir.path().to_owned(), 1 << 30) };
    let stores = Stores::open(&config).await.unwrap();
    let (written, found) = (put(&stores, data(1)).await, put(&stores, data(2)).await);
    time.pass(HOUR - 1);
    assert!(stores.blobs.find_missing(&[found]).await.unwrap().is_empty());
    assert_eq!(collect(&stores).await.disk.blobs, 0);
    time.pass(2);
    assert_eq!(collect(&stores).await.disk.blobs, 1);
    assert!(!is_there(dir.path(), &written) && is_there(dir.path(), &found));
}

#[tokio::test]
async fn room_is_made_from_what_no_result_names_also_after_a_restart() {
    let (dir, time) = (tempfile::tempdir().unwrap(), Time::new());
    let stores = open(dir.path(), 100_000, &time);
    let file = |seed| noise(seed, 20_000);
    let named = put(&stores, file(1)).await;
    let result = reapi::ActionResult {
        output_files: vec![reapi::OutputFile { digest: Some(named.to_wire()), ..Default::default() }],
        ..Default::default()
    };
    stores.actions.put("", &action(1), result).await.unwrap();
    time.pass(HOUR);
    let loose = [put(&stores, file(2)).await, put(&stores, file(3)).await];
    time.pass(3 * HOUR);
    drop(stores);
    let stores = open(dir.path(), 100_000, &time);
    assert_eq!(collect(&stores).await.marked, Some(1), "expected the first collection to mark");
    assert_eq!(collect(&stores).await.marked, None, "expected no marking while there is space");
    for seed in 4..8 {
        put(&stores, file(seed)).await;
    }
    assert!(
        loose.iter().all(|digest| !is_there(dir.path(), digest)),
        "expected blobs that no result names to be removed first"
    );
    assert!(
        stores.cached_result("", &action(1)).await.unwrap().is_some(),
        "expected the result to stay although it is older"
    );
    // The blobs of a removed result are evicted first.
    stores.actions.remove("", &action(1)).await.unwrap();
    time.pass(2 * HOUR);
    assert_eq!(collect(&stores).await.marked, Some(0), "expected marking on a full disk");
    put(&stores, file(8)).await;
    assert!(is_there(dir.path(), &SHA256.digest(&file(4))) && !is_there(dir.path(), &named));
}

/// Set in a process that this test program starts itself: the directory of its data, and its start time.
const CHILD: &str = "KILN_TEST_CHILD_DIR";
const CHILD_TIME: &str = "KILN_TEST_CHILD_TIME";

/// The child's part: stores results and collects forever, while the days pass, and reports what is stored.
async fn collect_for_ever(dir: &Path, begin: u64) {
    let time = Time::new();
    time.0.store(begin, Ordering::SeqCst);
    let stores = open(dir, 1 << 30, &time);
    loop {
        time.pass(6 * HOUR);
        let number = (time.now() / (6 * HOUR) % 200) as u8;
        let named = put_result(&stores, number, &[number, number / 2, 200 - number / 2, 7]).await;
        let named: Vec<String> = named.iter().map(Digest::to_string).collect();
        println!("\nRESULT {number} {} {}", time.now(), named.join(","));
        for seed in 0..20 {
            put(&stores, noise(time.now() * 100 + seed, 500)).await;
        }
        let report = collect(&stores).await;
        println!("\nSWEPT {}", report.disk.blobs);
    }
}

#[test]
fn a_collection_that_is_killed_has_lost_nothing_that_is_in_use() {
    const NAME: &str = "a_collection_that_is_killed_has_lost_nothing_that_is_in_use";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(dir) = std::env::var_os(CHILD) {
        let begin = std::env::var(CHILD_TIME).unwrap().parse().unwrap();
        return runtime.block_on(collect_for_ever(Path::new(&dir), begin));
    }
    let dir = tempfile::tempdir().unwrap();
    let (time, mut swept) = (Time::new(), 0_u64);
    let mut results: HashMap<u8, (u64, Vec<Digest>)> = HashMap::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .env(CHILD_TIME, time.now().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let mut note = |line: String| match line.split(' ').collect::<Vec<_>>()[..] {
            ["RESULT", number, at, named] => {
                let at = at.parse().unwrap();
                time.0.fetch_max(at, Ordering::SeqCst);
                let named = named.split(',').map(|digest| digest.parse().unwrap()).collect();
                results.insert(number.parse().unwrap(), (at, named));
            }
            ["SWEPT", count] => swept += count.parse::<u64>().unwrap(),
            _ => {}
        };
        lines.by_ref().take(200 + round * 7).for_each(&mut note);
        child.kill().unwrap();
        child.wait().unwrap();
        // What it reported before it died is also stored; its last line may be incomplete.
        let rest: Vec<String> = lines.collect();
        rest.into_iter().rev().skip(1).for_each(&mut note);
        // It may have been one step further than reported.
        time.pass(6 * HOUR);
        runtime.block_on(async {
            let stores = open(dir.path(), 1 << 30, &time);
            assert_eq!(support::files(&dir.path().join("blobs/tmp")), Vec::<std::path::PathBuf>::new());
            for again in [false, true] {
                if again {
                    collect(&stores).await;
                }
                for (number, (at, named)) in results.iter().filter(|(_, (at, _))| time.now() - at <= LIFE) {
                    let age = (time.now() - at) / HOUR;
                    assert!(named.iter().all(|digest| is_there(dir.path(), digest)), "result {number} of {age} h ago");
                    let found = stores.actions.get("", &action(*number)).await.unwrap();
                    assert!(found.is_some(), "expected result {number} of {age} h ago to stay");
                }
            }
        });
    }
    assert!(swept > 1_000, "expected collections to remove many blobs, found {swept} blobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_on_one_bucket_keep_what_any_of_them_names_and_remove_the_rest() {
    use kiln_store::s3::Address;
    use object_store::path::Path as Object;
    use object_store::{ObjectStore, ObjectStoreExt};
    let Some(s3) = kiln_harness::s3::S3::start() else { return };
    let address: Address = s3.address("gc");
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut coordinators = Vec::new();
    for dir in &dirs {
        let config = Config {
            life: Duration::from_secs(LIFE),
            clock: s3.clock(),
            s3: Some(address.clone()),
            ..Config::on_disk(dir.path().to_owned(), 1 << 30)
        };
        coordinators.push(Stores::open(&config).await.unwrap());
    }
    let object = |digest: &Digest| {
        let hex = digest.hex();
        Object::from(format!("gc/blobs/1/sha256/{}/{hex}-{}", &hex[..2], digest.size))
    };
    let mut results: Vec<(usize, u8, Vec<Digest>)> = Vec::new();
    for number in 0..4 {
        let of = usize::from(number % 2);
        results.push((of, number, put_result(&coordinators[of], number, &[number, 10 + number, 9, 8]).await));
    }
    let unused = put(&coordinators[0], noise(99, 3_000)).await;
    // Results 0 and 1 are hit every four days, 2 and 3 never. The collecting coordinator knows only half of them.
    for round in 0..8_usize {
        s3.pass(Duration::from_secs(4 * DAY));
        for (of, number, named) in &results[..2] {
            let found = coordinators[*of].cached_result("", &action(*number)).await.unwrap();
            assert!(found.is_some(), "expected result {number} to be a hit after {} days", 4 * (round + 1));
            let bucket = s3.bucket();
            collect(&coordinators[*of]).await;
            collect(&coordinators[1 - of]).await;
            for digest in named {
                assert!(
                    bucket.head(&object(digest)).await.is_ok(),
                    "expected {digest} to stay, which result {number} names"
                );
            }
        }
    }
    for (of, number, _) in &results[2..] {
        assert!(coordinators[*of].actions.get("", &action(*number)).await.unwrap().is_none());
    }
    let left: Vec<_> =
        futures::TryStreamExt::try_collect(s3.bucket().list(Some(&Object::from("gc/blobs")))).await.unwrap();
    let mut named: Vec<Object> = results[..2].iter().flat_map(|(_, _, named)| named.iter().map(object)).collect();
    named.sort_unstable();
    named.dedup();
    let mut left: Vec<Object> = left.into_iter().map(|object| object.location).collect();
    left.sort_unstable();
    assert_eq!(left, named, "expected the bucket to hold only what the used results name");
    assert!(!left.contains(&object(&unused)));
}
