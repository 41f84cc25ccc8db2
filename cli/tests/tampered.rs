//! Somebody who has all access to the farm's Redis and bucket, and not the farm's key: the farm loses what they damage, and takes nothing
//! from them that it did not write.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use futures::TryStreamExt;
use kiln_harness::replicas::Replicas;
use kiln_harness::{project, until};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use prost::Message;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::runtime::Runtime;

const RIGHT: &str = "this is right\n";

fn tree(name: &str) -> tempfile::TempDir {
    let config = format!(
        "name = \"{name}\"\nversion = \"1\"\n[steps.words]\nrun = \"echo this is > words\"\noutputs = [\"words\"]\n\
         [steps.made]\nneeds = [\"words\"]\nrun = \"echo $(cat words) $(cat in.txt) > made\"\noutputs = [\"made\"]\n\
         [artifacts.{name}]\nfrom = \"made\"\nfiles = [\"made\"]\nkind = \"binary\"\ncheck_elf = false\n"
    );
    project(&[("kiln.toml", &config), ("in.txt", "right\n")])
}

fn made(dir: &Path) -> Option<String> {
    std::fs::read_to_string(kiln_harness::find(dir, "made")?).ok()
}

/// A place of Redis: a key, and a field if it has several.
type Place = (Vec<u8>, Option<Vec<u8>>);

/// Whoever has the passwords.
struct Attacker {
    runtime: Runtime,
    redis: MultiplexedConnection,
    bucket: Box<dyn ObjectStore>,
}

impl Attacker {
    fn of(farm: &Replicas) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = redis::Client::open(farm.redis.lock().unwrap().url()).unwrap();
        let redis = runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
        Self { runtime, redis, bucket: Box::new(farm.s3.bucket()) }
    }

    fn ask<T: redis::FromRedisValue>(&self, command: &mut redis::Cmd) -> T {
        self.runtime.block_on(command.query_async(&mut self.redis.clone())).unwrap()
    }

    fn keys(&self, pattern: &str) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.ask(redis::cmd("KEYS").arg(pattern));
        keys.sort();
        keys
    }

    /// All values of strings and hashes.
    fn values(&self, pattern: &str) -> BTreeMap<Place, Vec<u8>> {
        let mut all = BTreeMap::new();
        for key in self.keys(pattern) {
            match self.ask::<String>(redis::cmd("TYPE").arg(&key)).as_str() {
                "string" => drop(all.insert((key.clone(), None), self.ask(redis::cmd("GET").arg(&key)))),
                "hash" => {
                    let fields: BTreeMap<Vec<u8>, Vec<u8>> = self.ask(redis::cmd("HGETALL").arg(&key));
                    all.extend(fields.into_iter().map(|(field, value)| ((key.clone(), Some(field)), value)));
                }
                _ => {}
            }
        }
        assert!(!all.is_empty(), "expected values of `{pattern}` in Redis");
        all
    }

    fn put(&self, (key, field): &Place, value: &[u8]) {
        match field {
            Some(field) => drop(self.ask::<i64>(redis::cmd("HSET").arg(key).arg(field).arg(value))),
            None => drop(self.ask::<String>(redis::cmd("SET").arg(key).arg(value).arg("KEEPTTL"))),
        }
    }

    /// Puts other values in the places of these.
    fn replace(&self, values: &BTreeMap<Place, Vec<u8>>, how: impl Fn(usize, &[Vec<u8>]) -> Vec<u8>) {
        let all: Vec<Vec<u8>> = values.values().cloned().collect();
        values.keys().enumerate().for_each(|(at, place)| self.put(place, &how(at, &all)));
    }

    /// All objects in the bucket, with their contents.
    fn objects(&self) -> Vec<(object_store::path::Path, Vec<u8>)> {
        self.runtime.block_on(async {
            let mut all: Vec<_> = self.bucket.list(None).try_collect::<Vec<_>>().await.unwrap();
            all.sort_by(|one, other| one.location.cmp(&other.location));
            let mut objects = Vec::new();
            for object in all {
                let data = self.bucket.get(&object.location).await.unwrap().bytes().await.unwrap();
                objects.push((object.location, data.to_vec()));
            }
            objects
        })
    }

    fn put_object(&self, at: &object_store::path::Path, data: Vec<u8>) {
        self.runtime.block_on(self.bucket.put(at, PutPayload::from(data))).unwrap();
    }
}

fn flipped(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if let Some(last) = value.last_mut() {
        *last ^= 1;
    }
    value
}

/// A coordinator that comes back without anything on its disk but what makes it this farm's.
fn begin_anew(farm: &Replicas, meanwhile: impl FnOnce()) {
    // In order, so that it does not wait for its own lease to end.
    farm.stop_coordinator("ada");
    std::fs::remove_dir_all(farm.dir.path().join("ada")).unwrap();
    meanwhile();
    farm.start_coordinator("ada");
    farm.wait_for_worker("one");
}

/// Builds the project anew, which must come out right; whether anything of it was known.
fn is_known(farm: &Replicas) -> bool {
    let dir = tree("shop");
    let built = farm.build(dir.path(), &[]).well();
    assert_eq!(made(&dir.path().join("kiln-out")).as_deref(), Some(RIGHT));
    built.caches().values().any(|cache| cache == "hit")
}

#[test]
fn results_and_blobs_that_an_attacker_changed_moved_or_made_up_are_not_used() {
    let Some(farm) = Replicas::start(&["ada"], &["one"]) else { return };
    let attacker = Attacker::of(&farm);
    assert!(!is_known(&farm));
    begin_anew(&farm, || {});
    assert!(is_known(&farm), "without an attack, all of it comes from Redis and the bucket");

    // A result that names a blob of the attacker's, stored under its own digest.
    let wrong = b"this is wrong\n".to_vec();
    let digest = DigestFunction::Sha256.digest(&wrong);
    let (like, _) = attacker.objects().into_iter().find(|(at, _)| at.as_ref().contains("/blobs/")).unwrap();
    let hash = like.filename().unwrap().to_owned();
    let at = like.as_ref().replace(&hash, &hash.replace(hash.split('-').next().unwrap(), &digest.hex()));
    attacker.put_object(&object_store::path::Path::from(at), wrong.clone());
    let result = reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "made".into(),
            digest: Some(digest.to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let made_up = result.encode_to_vec();
    let results = attacker.values("kiln:*:a:*");
    assert!(results.len() >= 2, "{results:?}");
    type Attack<'a> = (&'a str, Box<dyn Fn(usize, &[Vec<u8>]) -> Vec<u8> + 'a>);
    let attacks: [Attack<'_>; 5] = [
        ("changed", Box::new(|at, all| flipped(&all[at]))),
        ("moved", Box::new(|at, all| all[(at + 1) % all.len()].clone())),
        ("emptied", Box::new(|_, _| Vec::new())),
        ("made up", Box::new(|_, _| made_up.clone())),
        // Behind the marks of a value that is sealed.
        ("made up, with another's seal", Box::new(|at, all| [&all[at][..33.min(all[at].len())], &made_up].concat())),
    ];
    for (name, attack) in &attacks {
        begin_anew(&farm, || attacker.replace(&attacker.values("kiln:*:a:*"), attack));
        assert!(!is_known(&farm), "results that were {name} were used");
        assert!(farm.log("ada").contains("not sealed by this farm"), "{name}: {}", farm.log("ada"));
    }
    type Damage = fn(usize, &[(object_store::path::Path, Vec<u8>)]) -> Vec<u8>;
    let damages: [(&str, Damage); 3] = [
        ("changed", |at, all| flipped(&all[at].1)),
        ("moved", |at, all| all[(at + 1) % all.len()].1.clone()),
        ("emptied", |_, _| Vec::new()),
    ];
    for (name, damage) in damages {
        begin_anew(&farm, || {
            let objects = attacker.objects();
            for (at, (path, _)) in objects.iter().enumerate() {
                attacker.put_object(path, damage(at, &objects));
            }
        });
        // What was damaged is noticed when it is read: a build may end with what is lost, and never with what is wrong.
        let ends = until("the farm to have made again what it lost", || {
            let dir = tree("shop");
            let built = farm.build(dir.path(), &[]);
            let made = made(&dir.path().join("kiln-out"));
            assert!(made.is_none() || made.as_deref() == Some(RIGHT), "{name}: {made:?}");
            assert!(built.0.code == 0 || built.0.err.contains("build it again"), "{name}: {}", built.0.err);
            (built.0.code == 0).then_some(made)
        });
        assert_eq!(ends.as_deref(), Some(RIGHT), "{name}");
        assert!(farm.log("ada").contains("dropped a damaged blob"), "{name}: {}", farm.log("ada"));
    }
}

#[test]
fn an_artifact_is_what_was_built_or_an_error_whatever_is_done_to_its_record_and_content() {
    let Some(farm) = Replicas::start(&["ada"], &["one"]) else { return };
    let attacker = Attacker::of(&farm);
    let ids = ["shop", "bank"].map(|name| {
        let built = farm.build(tree(name).path(), &[]).well();
        built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned()
    });
    let fetched = |id: &str| {
        let dir = tempfile::tempdir().unwrap();
        let ran = farm.kiln(&["fetch", id, "--output", dir.path().to_str().unwrap()]);
        assert!(ran.code != 0 || made(dir.path()).as_deref() == Some(RIGHT), "{ran:?}: {:?}", made(dir.path()));
        (ran.code, ran.err)
    };
    assert_eq!(fetched(&ids[0]).0, 0);
    // The record of one artifact in the place of another's.
    let of = |id: &str| {
        let all = attacker.values("{kiln}:journal:*");
        let found = all.into_iter().find(|((key, field), _)| {
            field.as_deref() == Some(id.as_bytes()) && String::from_utf8_lossy(key).ends_with(":artifacts")
        });
        found.unwrap()
    };
    let ((place, own), (_, others)) = (of(&ids[0]), of(&ids[1]));
    for value in [others, flipped(&own), Vec::new()] {
        attacker.put(&place, &value);
        let (code, why) = fetched(&ids[0]);
        assert!(code != 0 && why.contains("seal"), "{why}");
    }
    attacker.put(&place, &own);
    assert_eq!(fetched(&ids[0]).0, 0);
    // Its content, in the bucket, with nothing on the coordinator's disk.
    begin_anew(&farm, || {
        for (path, data) in attacker.objects() {
            let is_it = data == RIGHT.as_bytes();
            attacker.put_object(&path, if is_it { b"this is wrong\n".to_vec() } else { data });
        }
    });
    let (code, why) = fetched(&ids[0]);
    assert!(code != 0 && why.contains("no longer has all of artifact"), "{why}");
}

#[test]
fn an_earlier_state_of_redis_undoes_no_distrust() {
    let Some(farm) = Replicas::start(&["ada", "ben"], &["liar"]) else { return };
    let attacker = Attacker::of(&farm);
    assert!(!is_known(&farm) && is_known(&farm));
    let distrust = |worker: &str, more: &[&str]| {
        let ran = farm.kiln(&[&["farm", "distrust", worker, "--since", "1h"], more].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    distrust("somebody", &["--unknown"]);
    let before: Vec<(Place, Vec<u8>)> = attacker.values("{kiln}:journal:.members:*").into_iter().collect();
    distrust("liar", &[]);
    farm.start_worker("one");
    farm.wait_for_worker("one");
    assert!(!is_known(&farm) && is_known(&farm), "it is built by another worker, once");
    before.iter().for_each(|(place, value)| attacker.put(place, value));
    for name in ["ada", "ben"] {
        farm.kill_coordinator(name);
        farm.start_coordinator(name);
    }
    farm.wait_for_worker("one");
    until("the coordinators to say so", || {
        ["ada", "ben"].iter().any(|name| farm.log(name).contains("an earlier page of the farm's ledger")).then_some(())
    });
    let listed: Value = serde_json::from_str(&farm.kiln(&["farm", "list", "--json"]).out).unwrap();
    let is = |row: &&Value| row["kind"] == "distrusted" && row["name"] == "liar";
    assert!(listed.as_array().unwrap().iter().any(|row| is(&row)), "{listed}");
    // And the page in Redis is the latest again.
    until("the page to be written again", || {
        let now = attacker.values("{kiln}:journal:.members:*");
        before.iter().all(|(place, value)| now.get(place) != Some(value)).then_some(())
    });
}
