//! A Redis that half of the coordinators are split from, and reads of workers that all of them serve.

use std::path::Path;

use kiln_harness::replicas::Replicas;
use kiln_harness::until;
use serde_json::Value;

use crate::{tree, wrong};

/// What one coordinator says of all of them, by their addresses.
fn coordinators(farm: &Replicas, name: &str) -> Vec<Value> {
    let ran = farm.kiln_at(name, &["farm", "coordinators", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

/// What one coordinator says of itself.
fn itself(farm: &Replicas, name: &str) -> Value {
    let url = farm.url_of(name);
    let all = coordinators(farm, name);
    all.iter().find(|one| one["address"] == url).unwrap_or_else(|| panic!("expected `{url}` among {all:#?}")).clone()
}

#[test]
fn half_of_the_coordinators_are_split_from_redis_and_all_of_them_still_build() {
    let Some(farm) = Replicas::start(&["ada", "ben", "cyd", "dan"], &["one", "two"]) else { return };
    let before = farm.leader().unwrap();
    let others: Vec<String> = farm.names().into_iter().filter(|name| *name != before).collect();
    let (split, whole) = ([before.clone(), others[0].clone()], &others[1..]);
    let dir = tree("split", 30);
    let mut build = farm.start_build_at(&split[1], dir.path(), &[]);
    build.until("the step to print", |event| {
        event["type"] == "log" && event["text"].as_str().unwrap_or_default().contains("deps 3")
    });
    split.iter().for_each(|name| farm.cut(name, true));
    let after = farm.wait_for_another(&before);
    assert!(whole.contains(&after), "expected one of {whole:?} to lead, not `{after}`");
    let built = build.end();
    assert_eq!(wrong(&built, dir.path(), "split"), None);
    for name in &split {
        // It knows of the one that leads by the others, says what is wrong, and passes builds on.
        let said = until("it to follow the one that leads", || {
            Some(itself(&farm, name)).filter(|said| said["leader"] == farm.url_of(&after))
        });
        let trouble = said["trouble"].as_str().unwrap();
        assert!(
            said["state"] == "follows" && trouble.contains("cannot find out which one leads: Redis at"),
            "{said:#}"
        );
        let word = format!("beyond-{name}");
        let dir = tree(&word, 1);
        let built = farm.build_at(name, dir.path(), &[]);
        assert_eq!(wrong(&built, dir.path(), &word), None);
    }
    // The others say so too, of those that are cut off and not of themselves.
    for one in coordinators(&farm, &after) {
        let is_split = split.iter().any(|name| one["address"] == farm.url_of(name));
        assert_eq!(one["trouble"] != "", is_split, "{one:#}");
    }
    split.iter().for_each(|name| farm.cut(name, false));
    until("all of them to be well", || {
        let all = coordinators(&farm, &before);
        (all.len() == 4 && all.iter().all(|one| one["trouble"] == "")).then_some(())
    });
    assert_eq!(farm.leader(), Some(after), "expected the one that took over to lead still");
    let doctor = farm.kiln_at(&before, &["doctor"]);
    assert!(farm.names().iter().all(|name| doctor.out.contains(&farm.url_of(name))), "{doctor:?}");
}

/// Bytes of blobs that a coordinator has sent to others.
fn sent(farm: &Replicas, name: &str) -> u64 {
    let text = until("its metrics", || farm.metrics(name));
    let is_read = |line: &&str| {
        line.starts_with("kiln_grpc_sent_bytes_total{")
            && ["method=\"Read\"", "method=\"BatchReadBlobs\""].iter().any(|method| line.contains(method))
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
    text.lines().filter(is_read).map(value).sum::<f64>() as u64
}

/// Files that no other build has, and how many bytes they are.
fn write_inputs(dir: &Path, word: &str) -> u64 {
    let content = |number: u32| {
        let block =
            |part: u32| kiln_proto::digest::DigestFunction::Sha256.digest(format!("{word} {number} {part}").as_bytes());
        (0..512).map(|part| format!("{}\n", block(part))).collect::<String>()
    };
    let write = |number: u32| {
        let text = content(number);
        std::fs::write(dir.join(format!("in-{number}")), &text).unwrap();
        text.len() as u64
    };
    (0..60).map(write).sum()
}

#[test]
fn a_workers_reads_are_spread_over_the_coordinators_and_followers_answer_them_themselves() {
    let Some(farm) = Replicas::start(&["ada", "ben", "cyd"], &[]) else { return };
    let urls: Vec<String> = farm.names().iter().map(|name| farm.url_of(name)).collect();
    farm.start_worker_at("one", &urls.join(","), &[]);
    farm.wait_for_worker("one");
    let leader = farm.leader().unwrap();
    let before: Vec<u64> = farm.names().iter().map(|name| sent(&farm, name)).collect();
    let (mut round, mut read) = (0, 0);
    // The first reads for a lease are passed on to the leader; of the rest, each coordinator answers its own.
    until("every coordinator to have sent some of what the worker has read, and the leader not all", || {
        round += 1;
        let word = format!("spread-{round}");
        let dir = tree(&word, 1);
        let config = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
        let config = config.replacen("inputs = [\"in.txt\"]", "inputs = [\"in.txt\", \"in-*\"]", 1);
        std::fs::write(dir.path().join("kiln.toml"), config).unwrap();
        read += write_inputs(dir.path(), &word);
        let built = farm.build(dir.path(), &[]);
        assert_eq!(wrong(&built, dir.path(), &word), None);
        let place = farm.names().iter().position(|name| *name == leader).unwrap();
        let all = farm.names().iter().zip(&before).all(|(name, before)| sent(&farm, name) > *before);
        (all && sent(&farm, &leader) - before[place] < read / 10 * 9).then_some(())
    });
    assert_eq!(farm.leader(), Some(leader));
}
