//! The connection: TLS, passwords, and servers other than Redis.

use std::time::Duration;

use kiln_store::Health;
use kiln_store::redis::{Address, Link, Tls};

use crate::coordinator::{coordinator, coordinator_with, redis_or_skip};
use kiln_harness::certificates::certificates;
use kiln_harness::redis::{Cluster, Redis};
use kiln_harness::replicated::Replicated;

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_an_untrusted_certificate_is_refused_in_words() {
    if !redis_or_skip() {
        return;
    }
    let trusted = certificates();
    let redis = Redis::with_tls(trusted.path());
    let url = format!("rediss://127.0.0.1:{}", redis.port);
    let tls = Tls { ca: Some(trusted.path().join("ca.pem")), ..Tls::default() };
    let (one, other) = (coordinator_with(&url, &tls).await, coordinator_with(&url, &tls).await);
    let digest = one.put(b"over TLS").await;
    assert_eq!(other.blobs().get(&digest).await.unwrap(), "over TLS");
    let stranger = Tls { ca: Some(certificates().path().join("ca.pem")), ..Tls::default() };
    // The file is gone with its directory: that error comes first.
    assert!(Address::parse(&url, &stranger).unwrap_err().to_string().contains("ca.pem"));
    let words = refused(&url, &Tls::default()).await;
    assert!(words.contains("certificate") && words.contains("--redis-ca"), "{words}");
    let plain = refused(&redis.url(), &Tls::default()).await;
    assert!(plain.contains("away") || plain.contains("rediss"), "{plain}");
}

async fn refused(url: &str, tls: &Tls) -> String {
    let address = match Address::parse(url, tls) {
        Ok(address) => address,
        Err(error) => return error.to_string(),
    };
    match Link::open(address).await {
        Err(error) => error.to_string(),
        Ok(link) => match &*link.health().borrow() {
            Health::Away(why) => format!("away: {why}"),
            other => panic!("expected `{url}` to be refused, found {other:?}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_or_password_is_refused_in_words_without_the_password() {
    if !redis_or_skip() {
        return;
    }
    let redis = Redis::with(&["--requirepass", "right-one"]);
    let port = redis.port;
    for (url, expected) in [
        (format!("redis://:wrong-one@127.0.0.1:{port}"), "password"),
        (format!("redis://127.0.0.1:{port}"), "password"),
        ("redis://:wrong-one@no-such-host.invalid:6379".to_owned(), "cannot resolve any host"),
        ("http://:wrong-one@127.0.0.1:6379".to_owned(), "`http`"),
    ] {
        let words = refused(&url, &Tls::default()).await;
        assert!(words.contains(expected), "expected {expected:?} for {url}: {words}");
        assert!(!words.contains("wrong-one"), "expected no password in: {words}");
    }
    let good = coordinator(&format!("redis://:right-one@127.0.0.1:{port}")).await;
    good.put(b"x").await;
    assert!(!format!("{:?}", good.stores).contains("right-one"), "expected no password in the debug form");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_redis_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let words = refused(&format!("redis://127.0.0.1:{port}"), &Tls::default()).await;
    assert!(words.contains("does not speak the Redis protocol"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_that_sentinels_name_is_used_and_its_successor_after_it() {
    let Some(mut farm) = Replicated::start() else { return };
    let (one, other) = (coordinator(&farm.url()).await, coordinator(&farm.url()).await);
    let first = one.put(b"on the first master").await;
    assert_eq!(other.blobs().get(&first).await.unwrap(), "on the first master");
    farm.nodes[0].kill();
    farm.wait_for_master(1);
    // Each finds at its next call that its connection is gone.
    let shared = async {
        for number in 0_u64.. {
            let digest = one.put(&number.to_le_bytes()).await;
            if other.has(&digest).await {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), shared).await.expect("expected the second master to be used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_that_hangs_keeps_nobody_from_the_others() {
    let Some(cluster) = Cluster::durable() else { return };
    let replicates = |node: &&Redis| node.says(&["INFO", "replication"], "role:slave");
    let hangs = cluster.nodes.iter().find(replicates).unwrap();
    hangs.signal("STOP");
    let url = format!("{},{}", hangs.url(), cluster.url());
    let (one, other) = (coordinator(&url).await, coordinator(&url).await);
    let digest = one.put(b"shared").await;
    assert_eq!(other.blobs().get(&digest).await.unwrap(), "shared");
}
