//! Records of step results shared by coordinators on one Redis.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_journal::{Fsync, Journal};
use kiln_layers::{LayerStore, OwnLayers, SharedLayers};
use kiln_proto::v1::{LayerCounts, StepLayers, StepRun};
use kiln_store::Health;
use kiln_store::redis::{Keys, Parts};

use crate::coordinator::{Coordinator, coordinator, redis_or_skip};
use kiln_harness::redis::{Cluster, Redis};

const LIFE: Duration = Duration::from_secs(1_000);
const MAX_RECORDS: usize = 50;

struct Records {
    coordinator: Coordinator,
    store: Arc<SharedLayers>,
}

/// A coordinator and its records of step results.
async fn records(url: &str) -> Records {
    let coordinator = coordinator(url).await;
    let journal = Journal::open(&coordinator.dir.path().join("journal.redb"), Fsync::default()).unwrap();
    let own = OwnLayers::open(journal, &coordinator.dir.path().join("layers.redb"), 1_000).await.unwrap();
    let link = coordinator.stores.redis.clone().unwrap();
    let parts = Parts::new(link, Keys::new("kiln", LIFE, crate::farm_key()), MAX_RECORDS);
    let store = SharedLayers::open(own, parts, coordinator.stores.blobs.clone()).await.unwrap();
    Records { coordinator, store }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn record(project: &str, hits: u64) -> StepLayers {
    StepLayers {
        project: project.to_owned(),
        users: [("ann".to_owned(), LayerCounts { hits, ..LayerCounts::default() })].into(),
        last: Some(StepRun { at_ms: now_ms(), ..StepRun::default() }),
        ..StepLayers::default()
    }
}

impl Records {
    async fn put(&self, keys: &[&str], hits: u64) {
        let records = keys.iter().map(|key| ((*key).to_owned(), record(key, hits)));
        self.store.put("team", records.collect()).await.unwrap();
    }

    /// Every key of the instance with its hits.
    async fn hits(&self) -> Vec<(String, u64)> {
        let listed = self.store.list("team").await.unwrap();
        listed.into_iter().map(|(key, known)| (key, known.all().users["ann"].hits)).collect()
    }

    async fn eventually_has(&self, expected: &[(&str, u64)]) {
        let expected: Vec<(String, u64)> = expected.iter().map(|(key, hits)| ((*key).to_owned(), *hits)).collect();
        let same = async {
            while self.hits().await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), same).await;
        assert!(found.is_ok(), "expected {expected:?}, found {:?}", self.hits().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_that_write_one_record_at_once_lose_nothing_of_each_others() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, two, three) = (records(&redis.url()).await, records(&redis.url()).await, records(&redis.url()).await);
    let write = async |records: &Records, add: u64| {
        for hits in 1..=100 {
            records.put(&["step", "other"], hits * add).await;
        }
    };
    tokio::join!(write(&one, 1), write(&two, 1_000), write(&three, 1_000_000));
    for records in [&one, &two, &three] {
        let sum = 100_100_100;
        assert_eq!(records.hits().await, [("other".to_owned(), sum), ("step".to_owned(), sum)]);
    }
    assert!(one.store.list("other team").await.unwrap().is_empty(), "expected tenants to be separate");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_shared_on_a_cluster_too() {
    if !redis_or_skip() {
        return;
    }
    let cluster = Cluster::start();
    let (one, other) = (records(&cluster.url()).await, records(&cluster.nodes[1].url()).await);
    one.put(&["a", "b", "c"], 1).await;
    let wanted = ["c", "none", "a"].map(str::to_owned);
    let found = other.store.get("team", &wanted).await.unwrap();
    let projects: Vec<String> = found.iter().map(|known| known.all().project).collect();
    assert_eq!(projects, ["c", "", "a"]);
    assert_eq!(other.hits().await, one.hits().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_one_removed_is_removed_for_all() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (records(&redis.url()).await, records(&redis.url()).await);
    one.put(&["a", "b"], 1).await;
    other.store.remove("team", &["a".to_owned()]).await.unwrap();
    assert_eq!(other.hits().await, [("b".to_owned(), 1)]);
    assert_eq!(redis.keys("kiln:2:l:1:a:*"), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_redis_was_away_is_shared_when_it_is_back() {
    if !redis_or_skip() {
        return;
    }
    let mut redis = Redis::start();
    let (one, other) = (records(&redis.url()).await, records(&redis.url()).await);
    one.put(&["before"], 1).await;
    redis.kill();
    one.coordinator.becomes(|health| matches!(health, Health::Away(_))).await;
    assert!(one.store.hindrance().unwrap().contains("Redis is unreachable"));
    one.put(&["meanwhile"], 2).await;
    assert_eq!(one.hits().await, [("before".to_owned(), 1), ("meanwhile".to_owned(), 2)], "expected its own records");
    assert!(other.hits().await.is_empty());
    // It lost all its data, like a Redis without persistence.
    redis.restart();
    other.coordinator.becomes(|health| *health == Health::Up).await;
    other.eventually_has(&[("before", 1), ("meanwhile", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_forgot_is_shared_again_by_the_next_list_of_who_has_it() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (records(&redis.url()).await, records(&redis.url()).await);
    one.put(&["a"], 1).await;
    redis.cli(&["FLUSHALL"]);
    assert!(other.hits().await.is_empty());
    assert_eq!(one.hits().await, [("a".to_owned(), 1)]);
    assert_eq!(other.hits().await, [("a".to_owned(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_expire_and_their_number_is_bounded() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let one = records(&redis.url()).await;
    let keys: Vec<String> = (0..MAX_RECORDS + 10).map(|number| format!("{number:03}")).collect();
    for key in &keys {
        one.put(&[key], 1).await;
    }
    for key in redis.keys("kiln:2:l*") {
        let seconds: u64 = redis.cli(&["TTL", &key]).parse().unwrap();
        assert!((LIFE.as_secs() - 100..=LIFE.as_secs()).contains(&seconds), "expected `{key}` to expire");
    }
    assert_eq!(redis.cli(&["ZCARD", "kiln:2:li:team"]), MAX_RECORDS.to_string());
    assert_eq!(
        redis.cli(&["ZRANGE", "kiln:2:li:team", "0", "0"]),
        "010",
        "expected the least recently written to be removed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_another_layout_and_keys_of_another_kind_count_as_absent() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::start();
    let (one, other) = (records(&redis.url()).await, records(&redis.url()).await);
    one.put(&["a", "b"], 1).await;
    redis.cli(&["HSET", "kiln:2:l:1:a:team", "a newer coordinator", "9 what is this"]);
    redis.cli(&["HSET", "kiln:2:l:1:a:team", "a broken one", "0\u{1}not a record"]);
    redis.cli(&["DEL", "kiln:2:l:1:b:team"]);
    redis.cli(&["SET", "kiln:2:l:1:b:team", "not even a hash"]);
    let found = other.store.get("team", &["a".to_owned(), "b".to_owned()]).await.unwrap();
    assert_eq!((found[0].others.len(), found[0].all().users["ann"].hits), (1, 1));
    assert!(found[1].others.is_empty());
    assert_eq!(redis.cli(&["HLEN", "kiln:2:l:1:a:team"]), "3", "expected an unknown value to be left alone");
}
