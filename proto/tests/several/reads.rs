//! Blobs are read from all coordinators, and one that has no right answer costs another question.

use kiln_proto::channel::{self, Access};
use kiln_proto::transfer::{Blob, Client, Error};

use crate::world::{BAD, Coordinator, F, Manner, black_hole, nobody};

const LARGE: usize = 3 << 20;

fn large() -> Vec<u8> {
    (0..LARGE).map(|at| (at % 251) as u8).collect()
}

async fn client(urls: &[&str]) -> Client {
    let channel = channel::connect(&urls.join(","), &Access::default()).await.unwrap();
    Client::new(channel, "", F)
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_spread_over_all_coordinators_and_each_comes_from_one() {
    let blobs: Vec<Vec<u8>> = (0..64_u32).map(|number| number.to_be_bytes().to_vec()).collect();
    let all: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    let mut coordinators = Vec::new();
    for _ in 0..3 {
        coordinators.push(Coordinator::start(Manner::Right, &all).await);
    }
    let urls: Vec<&str> = coordinators.iter().map(|coordinator| coordinator.url.as_str()).collect();
    let client = client(&urls).await.spread();
    for _ in 0..2 {
        for blob in &blobs {
            assert_eq!(client.get(&F.digest(blob)).await.unwrap(), blob[..]);
        }
    }
    for coordinator in &coordinators {
        let (reads, mut once) = (coordinator.reads(), coordinator.reads());
        once.sort();
        once.dedup();
        assert!(once.len() > 5, "expected a part of all reads at each coordinator: {}", once.len());
        assert_eq!(reads.len(), 2 * once.len(), "expected each blob from the same coordinator again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_without_a_right_answer_costs_another_question() {
    let (small, large) = (b"a small blob".to_vec(), large());
    let (few, many) = (F.digest(&small), F.digest(&large));
    let check = |manner: Manner, is_spread: bool| {
        let (small, large) = (small.clone(), large.clone());
        async move {
            let bad = Coordinator::start(manner, &[&small, &large]).await;
            let good = Coordinator::start(Manner::Right, &[&small, &large]).await;
            // In the order of the addresses, or as the digests say: then it is bad for one of the two lists.
            for urls in [[bad.url.as_str(), &good.url], [good.url.as_str(), &bad.url]] {
                let client = client(&urls).await;
                let client = if is_spread { client.spread() } else { client };
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("blob");
                let wanted = [few];
                let (one, two, file) =
                    tokio::join!(client.get_many(&wanted), client.get(&many), client.download(&many, &path));
                assert_eq!(one.unwrap()[&few], small, "{manner:?}");
                assert!(two.unwrap() == large, "{manner:?}");
                file.unwrap();
                assert!(std::fs::read(&path).unwrap() == large, "{manner:?}");
            }
            // Without spreading, whichever answered first when the client connected is asked first.
            assert!(!is_spread || !bad.reads().is_empty(), "{manner:?}: expected it to have been asked");
        }
    };
    let checks = BAD.into_iter().flat_map(|manner| [check(manner, true), check(manner, false)]);
    futures::future::join_all(checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_right_coordinator_is_enough_whatever_the_others_do() {
    let large = large();
    let digest = F.digest(&large);
    let manners = [Manner::Wrong, Manner::Breaking, Manner::Right];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut urls = Vec::new();
        for place in order {
            urls.push(Coordinator::start(manners[place], &[&large]).await.url);
        }
        let client = client(&urls.iter().map(String::as_str).collect::<Vec<_>>()).await.spread();
        let dir = tempfile::tempdir().unwrap();
        // Several times: what is known of the others by then changes the order in which they are asked.
        for number in 0..4 {
            let path = dir.path().join(number.to_string());
            client.download(&digest, &path).await.unwrap_or_else(|error| panic!("{order:?} {number}: {error}"));
            assert!(client.get(&digest).await.unwrap() == large, "{order:?} {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_without_a_coordinator_cost_no_blob() {
    let blobs: Vec<Vec<u8>> = (0..60_u32).map(|number| number.to_be_bytes().to_vec()).collect();
    let all: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    let good = Coordinator::start(Manner::Right, &all).await;
    let client = client(&[&black_hole().await, &nobody().await, &good.url]).await.spread();
    // All at once, as a worker fetches inputs: they wait for the silent one together and not one after the other.
    let reads = blobs.iter().map(|blob| async { assert_eq!(client.get(&F.digest(blob)).await.unwrap(), blob[..]) });
    futures::future::join_all(reads).await;
    assert_eq!(good.reads().len(), blobs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_missing_unless_one_is_away_who_may_have_it() {
    let digest = F.digest(b"nowhere");
    let (one, two) = (Coordinator::start(Manner::Right, &[]).await, Coordinator::start(Manner::Right, &[]).await);
    let all = client(&[&one.url, &two.url]).await;
    for client in [all.clone(), all.spread()] {
        let error = client.get(&digest).await.unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
    let some = client(&[&one.url, &nobody().await]).await;
    for client in [some.clone(), some.spread()] {
        let error = client.get(&digest).await.unwrap_err();
        assert!(error.is_connection(), "expected a reason to ask again later: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_is_never_taken_though_nobody_has_another() {
    let large = large();
    let (one, two) =
        (Coordinator::start(Manner::Wrong, &[&large]).await, Coordinator::start(Manner::Wrong, &[&large]).await);
    let client = client(&[&one.url, &two.url]).await.spread();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let error = client.download(&F.digest(&large), &path).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && !path.exists(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farm_that_is_slow_everywhere_is_waited_for() {
    let blob = b"a blob".to_vec();
    let one = Coordinator::start(Manner::SilentAtFirst, &[&blob]).await;
    let two = Coordinator::start(Manner::SilentAtFirst, &[&blob]).await;
    let client = client(&[&one.url, &two.url]).await.spread();
    assert_eq!(client.get(&F.digest(&blob)).await.unwrap(), blob);
    assert_eq!(one.reads().len() + two.reads().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_go_to_a_coordinator_that_takes_them() {
    let (small, large) = (b"a small blob".to_vec(), large());
    let away = Coordinator::start(Manner::Unavailable, &[]).await;
    let good = Coordinator::start(Manner::Right, &[]).await;
    let client = client(&[&away.url, &good.url]).await;
    for blob in [small, large] {
        let digest = F.digest(&blob);
        client.send(vec![(digest, Blob::Bytes(blob.into()))]).await.unwrap();
        assert!(good.has(&digest) && !away.has(&digest));
    }
}
