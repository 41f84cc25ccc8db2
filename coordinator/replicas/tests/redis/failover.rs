//! Sentinel or a cluster replaces the master.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use kiln_harness::certificates::certificates;
use kiln_harness::redis::{Cluster, Redis};
use kiln_harness::replicated::{Guards, Replicated};
use kiln_harness::until;
use kiln_journal::{Batch, Durability, Error, Fsync, Journal};
use kiln_redis::{Address, Tls};
use kiln_replicas::{RedisRegister, Register, Replica, Term};

use super::support::{append, get, key, put, register_at, replica, soon, term};

const LEASE: Duration = Duration::from_secs(60);

/// Asks as this replica until it is answered.
async fn claim(register: &RedisRegister, me: &Replica, held: Option<&Term>, lease: Duration) -> (Replica, Term) {
    loop {
        match register.claim(me, held, lease).await {
            Ok(claimed) if claimed.holder.is_some() => return claimed.holder.unwrap(),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_keeps_what_was_promised_and_the_term_goes_on() {
    let Some(mut farm) = Replicated::start() else { return };
    let register = register_at(&farm.url()).await.unwrap();
    let warnings = register.check(&replica("a")).await.unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("`min-replicas-to-write` to 1")), "{warnings:?}");
    let held = term(register.claim(&replica("a"), None, LEASE).await.unwrap());
    let journal = Journal::over(register.journal("", &held), Fsync::Interval(Duration::from_millis(100)));
    let stream = journal.new_stream("build");
    let promised = Batch::default().put("records", "promised", "1");
    stream.append_with(promised, Durability::Durable, |_| Bytes::from("promised")).await.unwrap();
    farm.nodes[0].kill();
    stream.append(|_| Bytes::from("meanwhile"));
    farm.wait_for_master(1);
    soon("the journal to recover", async {
        while let Err(error) = journal.commit(Batch::default().put("records", "after", "1"), Durability::Durable).await
        {
            assert!(matches!(error, Error::Away { .. }), "{error}");
        }
    })
    .await;
    assert_eq!(claim(&register, &replica("a"), Some(&held), LEASE).await.1, held);
    let entries = journal.read("build", 0, usize::MAX).await.unwrap();
    let entries: Vec<_> = entries.into_iter().map(|entry| entry.data).collect();
    assert_eq!(entries, ["promised", "meanwhile"]);
    assert_eq!(journal.get("records", "promised").await.unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_the_last_writes_leaves_no_hole() {
    let Some(mut farm) = Replicated::start() else { return };
    let register = register_at(&farm.url()).await.unwrap();
    let held = term(register.claim(&replica("a"), None, LEASE).await.unwrap());
    let journal = Journal::over(register.journal("", &held), Fsync::Interval(Duration::from_secs(3600)));
    let stream = journal.new_stream("build");
    let synced = Batch::default().put("records", "0", "0");
    stream.append_with(synced, Durability::Durable, |_| Bytes::from("0")).await.unwrap();
    // The replica of Redis hears nothing more from its master: it cannot log in again.
    farm.nodes[1].cli(&["CONFIG", "SET", "masterauth", "wrong"]);
    farm.nodes[0].cli(&["CONFIG", "SET", "requirepass", "other"]);
    farm.nodes[0].cli(&["-a", "other", "CLIENT", "KILL", "TYPE", "replica"]);
    let is_cut = || farm.nodes[1].says(&["INFO", "replication"], "master_link_status:down").then_some(());
    until("the replica to be cut off", is_cut);
    for text in ["1", "2", "3"] {
        let batch = Batch::default().put("records", text, text);
        stream.append_with(batch, Durability::Relaxed, |_| Bytes::from(text)).await.unwrap();
    }
    farm.nodes[0].kill();
    farm.wait_for_master(1);
    assert_eq!(farm.nodes[1].cli(&["XLEN", "{kiln}:journal::stream:build"]), "1", "the last writes are lost");
    soon("the journal to recover", async {
        while let Err(error) = journal.settle().await {
            assert!(matches!(error, Error::Away { .. }), "{error}");
        }
    })
    .await;
    let entries = journal.read("build", 0, usize::MAX).await.unwrap();
    let entries: Vec<_> = entries.into_iter().map(|entry| entry.data).collect();
    assert_eq!(entries, ["0", "1", "2", "3"]);
    assert_eq!(journal.count("records").await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_master_that_wakes_up_takes_nothing_of_the_old_leader() {
    let Some(farm) = Replicated::start() else { return };
    let (old, new) = (register_at(&farm.url()).await.unwrap(), register_at(&farm.url()).await.unwrap());
    let short = Duration::from_secs(2);
    let held = term(old.claim(&replica("a"), None, short).await.unwrap());
    let journal = old.journal("", &held);
    journal.commit([put("a", "1"), append(0, "entry")].concat(), true).await.unwrap();
    farm.nodes[0].signal("STOP");
    farm.wait_for_master(1);
    let next = loop {
        let (holder, next) = claim(&new, &replica("b"), None, LEASE).await;
        if holder.name == "b" {
            break next;
        }
    };
    let own = new.journal("", &next);
    // A replica of Redis that is not there any more is not waited for, once Redis knows it.
    soon("the new master to commit", async {
        while own.commit([put("a", "2"), append(1, "next")].concat(), true).await.is_err() {}
    })
    .await;
    farm.nodes[0].signal("CONT");
    for _ in 0..20 {
        let refused = journal.commit([put("a", "3"), append(1, "old")].concat(), false).await.unwrap_err();
        let is_harmless = matches!(refused, Error::Fenced { .. } | Error::Away { .. });
        assert!(is_harmless, "{refused}");
    }
    // In the end the old master follows the new one, and so does the old leader.
    let follows = || farm.nodes[0].says(&["INFO", "replication"], "master_link_status:up").then_some(());
    until("the old master to follow", follows);
    let ends = async {
        loop {
            match journal.commit(put("a", "3"), false).await.unwrap_err() {
                Error::Away { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
                other => return other,
            }
        }
    };
    let refused = soon("the old leader to find the new master", ends).await;
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
    assert_eq!(get(&*own, "a").await.as_deref(), Some("2"));
    assert_eq!(own.read("stream", 0, usize::MAX).await.unwrap()[1].data, "next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_its_sentinels_may_have_passwords_of_their_own() {
    let guards = Guards { redis: Some("of-redis"), sentinels: Some("of-sentinels"), ..Guards::default() };
    let Some(farm) = Replicated::guarded(&guards) else { return };
    let hosts = farm.hosts();
    let good = format!("redis+sentinel://:of-redis@{hosts}/main?sentinel-password=of-sentinels");
    let register = register_at(&good).await.unwrap();
    register.claim(&replica("a"), None, LEASE).await.unwrap();
    assert!(!format!("{register:?}").contains("of-redis"));
    for bad in [
        format!("redis+sentinel://:wrong@{hosts}/main?sentinel-password=of-sentinels"),
        format!("redis+sentinel://:of-redis@{hosts}/main?sentinel-password=wrong"),
        format!("redis+sentinel://:of-redis@{hosts}/main"),
    ] {
        let words = register_at(&bad).await.unwrap_err().to_string();
        assert!(words.contains("rejected the user or password"), "{bad}: {words}");
    }
    let other = format!("redis+sentinel://:of-redis@{hosts}/other?sentinel-password=of-sentinels");
    let words = register_at(&other).await.unwrap_err().to_string();
    assert!(words.contains("other"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_its_sentinels_may_speak_tls() {
    let trusted = certificates();
    let guards = Guards { certificates: Some(trusted.path()), ..Guards::default() };
    let Some(mut farm) = Replicated::guarded(&guards) else { return };
    let url = format!("rediss+sentinel://{}/main", farm.hosts());
    let open = async |ca: Option<PathBuf>| {
        let address = Address::parse(&url, &Tls { ca, ..Tls::default() }).unwrap();
        RedisRegister::open(address, "kiln", key()).await
    };
    let words = open(None).await.unwrap_err().to_string();
    assert!(words.contains("certificate") && words.contains("`--redis-ca`"), "{words}");
    let register = open(Some(trusted.path().join("ca.pem"))).await.unwrap();
    let held = term(register.claim(&replica("a"), None, LEASE).await.unwrap());
    register.journal("", &held).commit(put("a", "1"), true).await.unwrap();
    farm.nodes[0].kill();
    farm.wait_for_master(1);
    assert_eq!(claim(&register, &replica("a"), Some(&held), LEASE).await.1, held);
    assert_eq!(get(&*register.journal("", &held), "a").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_replaces_a_killed_master_keeps_term_and_journal() {
    replaces_a_master(|master| master.kill()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_replaces_a_master_that_hangs_keeps_term_and_journal() {
    replaces_a_master(|master| master.signal("STOP")).await;
}

async fn replaces_a_master(break_it: fn(&mut Redis)) {
    let Some(mut cluster) = Cluster::durable() else { return };
    let register = register_at(&cluster.url()).await.unwrap();
    let held = term(register.claim(&replica("a"), None, LEASE).await.unwrap());
    let journal = Journal::over(register.journal("", &held), Fsync::Interval(Duration::from_millis(100)));
    let stream = journal.new_stream("build");
    let promised = Batch::default().put("records", "promised", "1");
    stream.append_with(promised, Durability::Durable, |_| Bytes::from("promised")).await.unwrap();
    let master = cluster.master_of("{kiln}:lease");
    break_it(&mut cluster.nodes[master]);
    stream.append(|_| Bytes::from("meanwhile"));
    soon("the journal to recover", async {
        while let Err(error) = journal.commit(Batch::default().put("records", "after", "1"), Durability::Durable).await
        {
            assert!(matches!(error, Error::Away { .. }), "{error}");
        }
    })
    .await;
    assert_eq!(claim(&register, &replica("a"), Some(&held), LEASE).await.1, held);
    let entries = journal.read("build", 0, usize::MAX).await.unwrap();
    let entries: Vec<_> = entries.into_iter().map(|entry| entry.data).collect();
    assert_eq!(entries, ["promised", "meanwhile"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_or_node_that_hangs_keeps_nobody_from_the_others() {
    let (Some(farm), Some(cluster)) = (Replicated::start(), Cluster::durable()) else { return };
    farm.sentinels[0].signal("STOP");
    let replica_of_cluster =
        cluster.nodes.iter().find(|node| node.says(&["INFO", "replication"], "role:slave")).unwrap();
    replica_of_cluster.signal("STOP");
    let url = format!("{},{}", replica_of_cluster.url(), cluster.url());
    for url in [farm.url(), url] {
        let register = register_at(&url).await.unwrap();
        // As quickly as a leader needs it.
        term(register.claim(&replica("a"), None, Duration::from_secs(5)).await.unwrap());
        let register = register_at(&url).await.unwrap();
        term(register.claim(&replica("a"), None, Duration::from_secs(5)).await.unwrap());
    }
}
