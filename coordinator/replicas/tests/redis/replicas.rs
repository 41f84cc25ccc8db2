//! Whole replicas: who leads, and who leads next.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kiln_harness::redis::Redis;
use kiln_journal::Error;
use kiln_replicas::{Lead, Replicas, Standing, Timing};

use super::support::{get, put, register, register_at, replica, soon};

/// As in production, but quicker.
const QUICK: Timing = Timing { lease: Duration::from_millis(1500), renew: Duration::from_millis(300) };

async fn join(redis: &Redis, name: &str) -> Replicas {
    Replicas::join(Arc::new(register(redis).await), replica(name), QUICK).await.unwrap()
}

async fn leads(replicas: &Replicas) -> Lead {
    let mut standing = replicas.standing();
    let leads = standing.wait_for(|standing| matches!(standing, Standing::Leads(_)));
    let standing = soon("a leader", leads).await.unwrap();
    let Standing::Leads(lead) = &*standing else { unreachable!("it was waited for") };
    lead.clone()
}

async fn follows(replicas: &Replicas, name: &str) {
    let mut standing = replicas.standing();
    let is_it = |standing: &Standing| matches!(standing, Standing::Follows { leader, .. } if leader.name == name);
    soon("the leader to be known", standing.wait_for(is_it)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_the_next_follows_it_when_it_resigns() {
    let Some(redis) = Redis::durable() else { return };
    let a = join(&redis, "a").await;
    let first = leads(&a).await;
    let (b, c) = (join(&redis, "b").await, join(&redis, "c").await);
    follows(&b, "a").await;
    follows(&c, "a").await;
    let all = [replica("a"), replica("b"), replica("c")];
    soon("all to be known", async {
        while a.all() != all {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!first.is_over() && !first.over.is_cancelled());
    a.resign().await;
    assert!(first.is_over() && first.over.is_cancelled(), "it ends before the lease is given back");
    let (next, other) = tokio::select! {
        lead = leads(&b) => (lead, (&c, "b")),
        lead = leads(&c) => (lead, (&b, "c")),
    };
    assert!(next.term.epoch > first.term.epoch);
    follows(&a, other.1).await;
    follows(other.0, other.1).await;
    // One that goes leaves the lease behind.
    drop((b, c));
    a.resume();
    assert!(leads(&a).await.term.epoch > next.term.epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_redis_stops_and_begins_anew_when_it_is_back() {
    let Some(redis) = Redis::durable() else { return };
    let a = join(&redis, "a").await;
    let first = leads(&a).await;
    redis.signal("STOP");
    soon("the leadership to end", first.over.cancelled()).await;
    let mut standing = a.standing();
    standing.wait_for(|standing| matches!(standing, Standing::Vacant)).await.unwrap();
    redis.signal("CONT");
    let second = leads(&a).await;
    assert_ne!(second.term, first.term);
    assert!(first.is_over() && !second.is_over());
    let journal = a.register().journal("", &first.term);
    assert!(matches!(journal.commit(put("a", "1"), false).await, Err(Error::Fenced { .. })));
    a.register().journal("", &second.term).commit(put("a", "2"), true).await.unwrap();
}

/// The process of a coordinator, which a test can stop: it tells of itself on its standard output.
struct Process(Child, BufReader<std::process::ChildStdout>);

impl Process {
    fn start(redis: &Redis) -> Self {
        Self::start_with(redis, &[])
    }

    fn start_with(redis: &Redis, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "replicas::as_a_process", "--nocapture", "--ignored"])
            .env("KILN_TEST_REDIS", redis.url())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits for a line that begins like this; returns the rest.
    fn tells(&mut self, what: &str) -> String {
        for line in (&mut self.1).lines() {
            // The test runner writes before it, on the same line.
            if let Some((_, rest)) = line.unwrap().split_once(what) {
                return rest.trim().to_owned();
            }
        }
        panic!("the process ended without `{what}`");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: what [`Process`] runs. For each line that it reads it commits once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is run by other tests"]
async fn as_a_process() {
    let Ok(url) = std::env::var("KILN_TEST_REDIS") else { return };
    let a = Replicas::join(Arc::new(register_at(&url).await.unwrap()), replica("a"), QUICK).await.unwrap();
    let lead = leads(&a).await;
    let journal = a.register().journal("", &lead.term);
    journal.commit(put("a", "its own"), true).await.unwrap();
    println!("leads {}", lead.term);
    for _line in std::io::stdin().lines() {
        let over = lead.is_over();
        let committed = match journal.commit(put("a", "too late"), true).await {
            Ok(()) => "committed".to_owned(),
            Err(error) => error.to_string(),
        };
        println!("over {over}, {committed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_knows_at_once_that_it_is_over_and_changes_nothing() {
    let Some(redis) = Redis::durable() else { return };
    let mut process = Process::start(&redis);
    process.tells("leads ");
    let b = join(&redis, "b").await;
    follows(&b, "a").await;
    process.signal("STOP");
    let lead = leads(&b).await;
    let journal = b.register().journal("", &lead.term);
    journal.commit(put("a", "the next one's"), true).await.unwrap();
    // It finds the line as soon as it goes on.
    process.0.stdin.as_mut().unwrap().write_all(b"commit\n").unwrap();
    process.signal("CONT");
    let told = process.tells("over ");
    assert!(told.starts_with("true, ") && told.contains("belongs to another coordinator"), "{told}");
    assert_eq!(get(&*journal, "a").await.as_deref(), Some("the next one's"));
    assert!(!lead.is_over());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced() {
    let Some(redis) = Redis::durable() else { return };
    let mut process = Process::start(&redis);
    process.tells("leads ");
    let (b, c) = (join(&redis, "b").await, join(&redis, "c").await);
    follows(&b, "a").await;
    process.signal("KILL");
    let lead = tokio::select! {
        lead = leads(&b) => lead,
        lead = leads(&c) => lead,
    };
    let journal = b.register().journal("", &lead.term);
    assert_eq!(get(&*journal, "a").await.as_deref(), Some("its own"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_hours_apart_do_not_matter() {
    let Some(redis) = Redis::durable() else { return };
    let Some(library) = faketime() else { return };
    for clock in ["-5h", "+5h"] {
        let variables = [("LD_PRELOAD", &*library), ("FAKETIME", clock), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let mut process = Process::start_with(&redis, &variables);
        process.tells("leads ");
        let b = join(&redis, "b").await;
        follows(&b, "a").await;
        assert_eq!(b.all(), [replica("a"), replica("b")], "the one whose clock is {clock} is known");
        // It renews its lease, and is not taken for one that has run out.
        soon("a renewal", async {
            let until = redis.cli(&["HGET", "{kiln}:lease", "until"]);
            while redis.cli(&["HGET", "{kiln}:lease", "until"]) == until {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(matches!(&*b.standing().borrow(), Standing::Follows { leader, .. } if leader.name == "a"));
        process.signal("KILL");
        leads(&b).await;
        b.resign().await;
    }
}

/// The library that gives a process another clock.
fn faketime() -> Option<String> {
    let found = ["x86_64", "aarch64"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime/libfaketime.so.1"));
    let found = found.into_iter().find(|path| std::path::Path::new(path).exists());
    if found.is_none() {
        kiln_harness::cannot_run("libfaketime is not installed");
    }
    found
}
