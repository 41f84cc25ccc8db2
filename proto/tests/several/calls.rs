//! Calls reach a coordinator that answers, keep to it, and carry the token of its address.

use kiln_proto::channel::{self, Access, Channel, Error};
use kiln_proto::local;
use kiln_proto::reapi::FindMissingBlobsRequest;
use kiln_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use tonic::Code;

use crate::world::{Coordinator, Manner, black_hole, nobody};

async fn connect(urls: &[&str]) -> Result<Channel, Error> {
    channel::connect(&urls.join(","), &Access::default()).await
}

async fn find(channel: &Channel) -> Result<(), tonic::Status> {
    let mut client = ContentAddressableStorageClient::new(channel.clone());
    client.find_missing_blobs(FindMissingBlobsRequest::default()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_is_called_and_kept() {
    let (one, two) = (Coordinator::start(Manner::Right, &[]).await, Coordinator::start(Manner::Right, &[]).await);
    let channel = connect(&[&black_hole().await, &nobody().await, &one.url, &two.url]).await.unwrap();
    for _ in 0..5 {
        find(&channel).await.unwrap();
    }
    let counts = [one.calls().len(), two.calls().len()];
    assert!(counts == [5, 0] || counts == [0, 5], "expected all calls at one coordinator: {counts:?}");
    assert_eq!(channel.url(), if counts[0] == 5 { one.url } else { two.url });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_unavailable_costs_one_attempt_and_is_left() {
    let away = Coordinator::start(Manner::Unavailable, &[]).await;
    let good = Coordinator::start(Manner::Right, &[]).await;
    let channel = connect(&[&away.url, &good.url]).await.unwrap();
    for _ in 0..5 {
        find(&channel).await.unwrap();
    }
    // None if the other was the first to answer when the client connected.
    assert!(away.calls().len() <= 1 && good.calls().len() == 5, "{} {}", away.calls().len(), good.calls().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn if_all_are_unavailable_each_is_asked_once_and_the_caller_learns_why() {
    let (one, two) =
        (Coordinator::start(Manner::Unavailable, &[]).await, Coordinator::start(Manner::Unavailable, &[]).await);
    let channel = connect(&[&one.url, &two.url]).await.unwrap();
    let status = find(&channel).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "it is shutting down"));
    assert_eq!((one.calls().len(), two.calls().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_coordinator_every_address_is_named_with_its_reason() {
    let (silent, dead) = (black_hole().await, nobody().await);
    let error = connect(&[&silent, &dead]).await.unwrap_err();
    let words = error.to_string();
    assert!(error.is_away() && words.contains(&silent) && words.contains(&dead), "{words}");
    assert!(words.contains("does not answer") && words.contains("refused"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_is_told_its_own_token() {
    let (one, two) = (Coordinator::start(Manner::Right, &[]).await, Coordinator::start(Manner::Right, &[]).await);
    let otherwise = tempfile::tempdir().unwrap();
    let _published = [(&one, "kiln_one"), (&two, "kiln_two")]
        .map(|(coordinator, token)| local::publish(coordinator.port, token.to_owned(), otherwise.path()).unwrap());
    let channel = connect(&[&one.url, &two.url]).await.unwrap();
    for each in channel.each(None) {
        find(&each).await.unwrap();
    }
    for (coordinator, token) in [(&one, "Bearer kiln_one"), (&two, "Bearer kiln_two")] {
        assert_eq!(coordinator.calls(), [("find".to_owned(), Some(token.to_owned()))]);
    }
}
