//! A coordinator that is killed at any moment: what it acknowledged is still there, and what a client has seen is never
//! contradicted.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_proto::channel;
use kiln_proto::v1::builds_client::BuildsClient;
use kiln_proto::v1::{self, event};
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::{unique, work};
use kiln_harness::{Farm, until};

const ROUNDS: usize = 3;

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn watch(url: &str, build: &str, offset: u64) -> Result<tonic::Streaming<v1::Event>, Failed> {
    let mut builds = BuildsClient::new(channel::connect(url, &channel::Access::default()).await?);
    Ok(builds
        .watch(v1::WatchRequest { build: build.to_owned(), offset, ..v1::WatchRequest::default() })
        .await?
        .into_inner())
}

fn ended(event: &v1::Event) -> Option<v1::Status> {
    match &event.event {
        Some(event::Event::BuildFinished(finished)) => Some(finished.status()),
        _ => None,
    }
}

/// Follows a build to its end through all restarts, as a client does; returns the event at each offset.
async fn follow(url: &str, build: &str) -> BTreeMap<u64, v1::Event> {
    let mut seen = BTreeMap::<u64, v1::Event>::new();
    loop {
        let offset = seen.last_key_value().map_or(0, |(last, _)| last + 1);
        if let Ok(mut events) = watch(url, build, offset).await {
            while let Ok(Some(event)) = events.message().await {
                let (at, is_last) = (event.offset, ended(&event).is_some());
                assert!(at >= offset && !seen.contains_key(&at), "offset {at} came after {offset}");
                seen.insert(at, event);
                if is_last {
                    return seen;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The complete record of a finished build.
async fn recorded(url: &str, build: &str) -> Result<Vec<v1::Event>, Failed> {
    let (mut events, mut found) = (watch(url, build, 0).await?, Vec::new());
    while let Some(event) = events.message().await? {
        found.push(event);
    }
    Ok(found)
}

#[test]
fn a_coordinator_that_is_killed_at_any_moment_keeps_what_it_acknowledged() {
    let seed = std::env::var("KILN_KILLS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("KILN_KILLS_SEED={seed}");
    let mut dice = rand::rngs::SmallRng::seed_from_u64(seed);
    let mut pause = |most: u64| std::thread::sleep(Duration::from_millis(dice.random_range(0..most)));
    let farm = Farm::start(&["one"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut builds: BTreeMap<String, BTreeMap<u64, v1::Event>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let talk = "i=0; while [ $((i=i+1)) -le 300 ]; do echo line $i; sleep 0.005; done; echo made > out";
        let more = "outputs = [\"out\"]\n[artifacts.p]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"";
        let dir = work(&format!("# {}\n{talk}", unique()), more);
        let mut build = farm.start_build(dir.path(), &[]);
        pause(400);
        farm.restart_coordinator();
        let id = build.until("it is submitted", |event| event["type"] == "build_started")["build"].clone();
        let id = id.as_str().unwrap().to_owned();
        let (url, followed) = (farm.url.clone(), id.clone());
        let follower = runtime.spawn(async move { follow(&url, &followed).await });
        pause(1_500);
        farm.restart_coordinator();
        let built = build.end().well();
        let artifact = built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
        let seen = runtime.block_on(follower).unwrap();
        // A client has seen how it ended: from now on that must be known, whatever happens.
        farm.restart_coordinator();
        builds.insert(id, seen);
        let artifacts = until("the coordinator to be back", || {
            Some(farm.kiln(&["artifacts", "--json"])).filter(|ran| ran.code == 0)
        });
        assert!(artifacts.out.contains(&artifact), "lost {artifact}: {}", artifacts.out);
    }
    let listed: Vec<Value> = serde_json::from_str(&farm.kiln(&["builds", "--json"]).out).unwrap();
    assert_eq!(listed.len(), builds.len(), "expected each build once: {listed:#?}");
    assert!(listed.iter().all(|build| build["status"] == "success"), "{listed:#?}");
    for (id, seen) in &builds {
        let events = runtime.block_on(recorded(&farm.url, id)).unwrap();
        assert_eq!(
            ended(events.last().unwrap()),
            Some(v1::Status::Succeeded),
            "expected its end to be recorded with its last event"
        );
        assert!(events.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets grow");
        for event in &events {
            let before = seen.get(&event.offset);
            assert_eq!(before.unwrap_or(event), event, "offset {} had a different event before", event.offset);
        }
    }
}
