//! A Redis that is full, read-only, stopped, busy or restarted, and one that has lost its last writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_harness::redis::Redis;
use kiln_journal::{Batch, Durability, Error, Fsync, Journal, Patient, Write};
use kiln_replicas::Register;

use super::support::{append, claim, contents, get, led, put, replica, soon};

const SOON: Fsync = Fsync::Interval(Duration::from_millis(100));

fn line(text: &str) -> impl FnOnce(u64) -> Bytes {
    let text = text.to_owned();
    move |_| text.into()
}

async fn lines(journal: &Journal, stream: &str) -> Vec<String> {
    let entries = journal.read(stream, 0, usize::MAX).await.unwrap();
    entries.into_iter().map(|entry| String::from_utf8(entry.data.to_vec()).unwrap()).collect()
}

fn durable(key: &str) -> Batch {
    Batch::default().put("records", key, "value")
}

/// Commits until that succeeds.
async fn recover(journal: &Journal) {
    let recovers = async {
        while let Err(error) = journal.commit(durable("recovered"), Durability::Durable).await {
            assert!(matches!(error, Error::Away { .. }), "{error}");
        }
    };
    soon("the journal to recover", recovers).await;
}

/// What is relaxed is kept and written later, and what is durable is refused, while `break_it` lasts.
async fn outlives(redis: &Redis, break_it: &[&str], mend_it: &[&str], word: &str) {
    let (.., engine) = led(redis).await;
    let journal = Journal::over(engine.clone(), SOON);
    let stream = journal.new_stream("build");
    stream.append(line("before"));
    journal.settle().await.unwrap();
    redis.cli(break_it);
    let before = contents(redis).await;
    stream.append(line("meanwhile"));
    let refused = journal.commit(durable("refused"), Durability::Durable).await.unwrap_err().to_string();
    assert!(refused.contains("accepts no writes") && refused.contains(word), "{refused}");
    let group = [put("a", "1"), append(0, "x")].concat();
    engine.commit(group, false).await.unwrap_err();
    assert_eq!(contents(redis).await, before, "nothing is there in part");
    assert_eq!(lines(&journal, "build").await, ["before"], "it is still read");
    redis.cli(mend_it);
    recover(&journal).await;
    assert_eq!(lines(&journal, "build").await, ["before", "meanwhile"]);
    assert_eq!(journal.get("records", "refused").await.unwrap(), None);
}

#[tokio::test]
async fn a_full_redis_costs_nothing_that_readers_have_seen() {
    let Some(redis) = Redis::durable() else { return };
    outlives(&redis, &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"], "OOM").await;
}

#[tokio::test]
async fn a_read_only_redis_costs_nothing_that_readers_have_seen() {
    let Some(redis) = Redis::durable() else { return };
    // A master that lost its replicas.
    let broken = ["CONFIG", "SET", "min-replicas-to-write", "1"];
    outlives(&redis, &broken, &["CONFIG", "SET", "min-replicas-to-write", "0"], "NOREPLICAS").await;
}

#[tokio::test]
async fn a_replica_that_was_a_master_takes_no_commit() {
    let (Some(other), Some(redis)) = (Redis::durable(), Redis::durable()) else { return };
    let (.., engine) = led(&redis).await;
    engine.commit(put("a", "1"), true).await.unwrap();
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    let refused = engine.commit(put("a", "2"), true).await.unwrap_err().to_string();
    // It has the other's contents, or still its own.
    assert!(refused.contains("READONLY") || refused.contains("belongs to another coordinator"), "{refused}");
}

#[tokio::test]
async fn a_full_redis_does_not_end_the_lease() {
    let Some(redis) = Redis::durable() else { return };
    let (register, held, engine) = led(&redis).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    engine.commit(put("new", "1"), true).await.unwrap_err();
    assert_eq!(claim(&register, Some(&held)).await, held, "whoever leads can make room");
    register.release(&replica("one"), &held).await.unwrap();
}

#[tokio::test]
async fn a_full_redis_lets_go_of_what_is_old() {
    let Some(redis) = Redis::durable() else { return };
    let (.., engine) = led(&redis).await;
    engine.commit([append(0, "old"), put("old", "1")].concat(), true).await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    engine.commit(put("new", "1"), true).await.unwrap_err();
    let remove =
        vec![Write::RemoveStream { stream: "stream".into() }, Write::Remove { space: "records", key: "old".into() }];
    engine.commit(vec![Arc::new(remove)], true).await.unwrap();
    assert_eq!((engine.end("stream").await.unwrap(), engine.count("records").await.unwrap()), (0, 0));
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    engine.commit(put("new", "1"), true).await.unwrap();
    assert_eq!(get(&*engine, "new").await.as_deref(), Some("1"));
    let left = redis.keys("*stream*");
    assert!(left.is_empty(), "a removed stream takes no memory: {left:?}");
}

#[tokio::test]
async fn a_stopped_redis_is_an_error_and_not_a_wait() {
    let Some(redis) = Redis::durable() else { return };
    let (.., engine) = led(&redis).await;
    let journal = Journal::over(engine, SOON);
    let stream = journal.new_stream("build");
    stream.append(line("before"));
    journal.settle().await.unwrap();
    redis.signal("STOP");
    stream.append(line("meanwhile"));
    let refused = journal.commit(durable("refused"), Durability::Durable).await.unwrap_err();
    assert!(refused.to_string().contains("unreachable"), "{refused}");
    let unread = journal.read("build", 0, usize::MAX).await.unwrap_err();
    assert!(unread.to_string().contains("unreachable"), "{unread}");
    redis.signal("CONT");
    recover(&journal).await;
    assert_eq!(lines(&journal, "build").await, ["before", "meanwhile"]);
}

#[tokio::test]
async fn a_busy_redis_is_waited_for() {
    let redis = Redis::with(&["--appendonly", "yes", "--enable-debug-command", "yes"]);
    let (.., engine) = led(&redis).await;
    let journal = Journal::over(engine, SOON);
    let stream = journal.new_stream("build");
    std::thread::scope(|scope| {
        scope.spawn(|| redis.cli(&["DEBUG", "SLEEP", "2"]));
    });
    stream.append(line("meanwhile"));
    recover(&journal).await;
    assert_eq!(lines(&journal, "build").await, ["meanwhile"]);
}

#[tokio::test]
async fn a_killed_redis_comes_back_with_term_and_journal() {
    let Some(mut redis) = Redis::durable() else { return };
    let (register, held, engine) = led(&redis).await;
    let journal = Journal::over(engine, SOON);
    let stream = journal.new_stream("build");
    stream.append(line("before"));
    journal.settle().await.unwrap();
    redis.kill();
    stream.append(line("meanwhile"));
    let refused = journal.commit(durable("refused"), Durability::Durable).await.unwrap_err();
    assert!(refused.to_string().contains("unreachable"), "{refused}");
    redis.restart();
    recover(&journal).await;
    assert_eq!(lines(&journal, "build").await, ["before", "meanwhile"]);
    assert_eq!(claim(&register, Some(&held)).await, held);
}

/// The file that Redis appends to, and its length.
fn log(redis: &Redis) -> (std::path::PathBuf, u64) {
    let directory = std::fs::read_dir(redis.dir().join("appendonlydir")).unwrap();
    let mut files = directory.map(|entry| entry.unwrap().path());
    let log =
        files.find(|path| path.to_string_lossy().contains(".incr.")).expect("expected a file that is appended to");
    let length = log.metadata().unwrap().len();
    (log, length)
}

/// A power cut: what was written from `length` on never reached the disk.
fn cut(redis: &mut Redis, length: u64) {
    redis.kill();
    let (log, _) = log(redis);
    std::fs::File::options().write(true).open(log).unwrap().set_len(length).unwrap();
    redis.restart();
}

#[tokio::test]
async fn what_a_power_cut_took_is_written_again_if_nothing_of_it_was_promised() {
    let Some(mut redis) = Redis::durable() else { return };
    let (register, held, engine) = led(&redis).await;
    // As a coordinator has it: waiting for what is away must not hide what is gone.
    let engine = Arc::new(Patient::over(engine, Duration::from_secs(10)));
    let journal = Journal::over(engine, Fsync::Interval(Duration::from_secs(3600)));
    let stream = journal.new_stream("build");
    stream.append(line("synced"));
    journal.settle().await.unwrap();
    let (_, length) = log(&redis);
    for text in ["one", "two"] {
        stream.append(line(text));
        journal.commit(Batch::default().put("records", text, text), Durability::Relaxed).await.unwrap();
    }
    cut(&mut redis, length);
    assert_eq!(lines(&journal, "build").await, ["synced"]);
    recover(&journal).await;
    assert_eq!(lines(&journal, "build").await, ["synced", "one", "two"]);
    assert_eq!(journal.get("records", "two").await.unwrap().unwrap(), "two");
    assert_eq!(claim(&register, Some(&held)).await, held, "the term goes on");
}

#[tokio::test]
async fn the_writer_is_told_once_that_redis_has_lost_commits() {
    let Some(mut redis) = Redis::durable() else { return };
    let (.., engine) = led(&redis).await;
    engine.commit(put("a", "1"), true).await.unwrap();
    let (_, length) = log(&redis);
    engine.commit(put("a", "2"), false).await.unwrap();
    cut(&mut redis, length);
    // Before it is told, nothing that follows is accepted: it would stand behind a hole.
    let told = async {
        loop {
            let error = engine.commit(put("b", "3"), false).await.unwrap_err().to_string();
            if error.contains("it has lost the last commits") {
                return;
            }
        }
    };
    soon("the writer to be told", told).await;
    engine.commit([put("a", "2"), put("b", "3")].concat(), false).await.unwrap();
    assert_eq!(get(&*engine, "a").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_term_ends_when_redis_has_lost_what_was_promised() {
    let Some(mut redis) = Redis::durable() else { return };
    let (register, held, engine) = led(&redis).await;
    engine.commit(append(0, "kept"), true).await.unwrap();
    let (_, length) = log(&redis);
    engine.commit(append(1, "promised"), true).await.unwrap();
    engine.commit(append(2, "not even promised"), false).await.unwrap();
    cut(&mut redis, length);
    let ends = async {
        loop {
            match engine.commit(append(3, "next"), false).await.unwrap_err() {
                // The connection was that to the killed one.
                Error::Away { .. } => {}
                other => return other,
            }
        }
    };
    let refused = soon("the term to end", ends).await;
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
    let next = claim(&register, Some(&held)).await;
    assert_ne!(next, held, "the same replica begins anew, with what is there");
    let journal = register.journal("", &next);
    assert_eq!(journal.read("stream", 0, usize::MAX).await.unwrap().len(), 1);
    journal.commit(append(1, "anew"), true).await.unwrap();
}

#[tokio::test]
async fn a_redis_that_can_wait_for_its_disk_does() {
    let Some(redis) = Redis::valkey(&[]) else { return };
    let (register, _, engine) = led(&redis).await;
    assert_eq!(register.check(&replica("a")).await.unwrap(), [""; 0], "nothing is lost at a power cut");
    engine.commit(append(0, "durable"), true).await.unwrap();
    let waits = || {
        let calls = redis.cli(&["INFO", "commandstats"]);
        calls.lines().find(|line| line.starts_with("cmdstat_waitaof:")).map(str::trim).map(str::to_owned)
    };
    let waited = waits().expect("expected the disk to be waited for");
    assert!(waited.ends_with("failed_calls=0"), "{waited}");
    engine.commit(append(1, "relaxed"), false).await.unwrap();
    assert_eq!(waits().unwrap(), waited, "a relaxed commit does not wait");
    redis.cli(&["CONFIG", "SET", "appendonly", "no"]);
    let refused = engine.commit(append(2, "durable"), true).await.unwrap_err().to_string();
    assert!(refused.contains("WAITAOF"), "{refused}");
}
