//! Tests of records in a journal file.

use kiln_journal::Fsync;
use kiln_proto::digest::DigestFunction;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{Attestation, Build, GateResult, Reproducibility, Status, SubmitRequest, Warning, event};

use super::*;

/// Records in a temporary directory.
pub(crate) fn records() -> (tempfile::TempDir, Records) {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&directory.path().join("journal.redb"), Fsync::default()).unwrap();
    (directory, Records::over(journal))
}

fn artifact(id: &str, content: &[u8]) -> Artifact {
    let root = Some(DigestFunction::Sha256.digest(content).to_wire());
    Artifact { id: id.into(), name: "shop".into(), root, ..Default::default() }
}

pub(crate) fn build(id: &str, status: Status) -> Build {
    Build { id: id.into(), status: status.into(), ..Default::default() }
}

fn warning(text: &str) -> event::Event {
    event::Event::Warning(Warning { text: text.into() })
}

#[tokio::test]
async fn another_content_under_the_same_id_is_refused() {
    let (_directory, records) = records();
    let first = Artifact { build: "first".into(), ..artifact("shop-1", b"one") };
    records.put_artifact(first.clone()).await.unwrap();
    let again = records.put_artifact(Artifact { build: "second".into(), ..artifact("shop-1", b"one") }).await.unwrap();
    assert_eq!(again, first, "expected the first record to stand");
    let refused = records.put_artifact(artifact("shop-1", b"two")).await.unwrap_err();
    assert!(refused.to_string().contains("`shop-1`"), "{refused}");
    assert_eq!(records.artifact("shop-1").await.unwrap(), Some(first));
}

#[tokio::test]
async fn what_an_artifact_passes_later_is_added_and_replaces_what_had_its_name() {
    let (_directory, records) = records();
    let gate = |name: &str, message: &str| GateResult {
        name: name.into(),
        message: message.into(),
        passed: true,
        ..GateResult::default()
    };
    let stated = |name: &str, kind: &str| Attestation {
        name: name.into(),
        predicate_type: kind.into(),
        ..Attestation::default()
    };
    let first = Artifact {
        gates: vec![gate("size", "1 byte"), gate("smoke", "")],
        attestations: vec![stated("sbom", "a"), stated("gate-size", "b")],
        ..artifact("shop-1", b"one")
    };
    records.put_artifact(first.clone()).await.unwrap();
    let added =
        records.add_statements("shop-1", vec![gate("size", "2 bytes")], vec![stated("gate-size", "c")]).await.unwrap();
    assert_eq!(added.gates, [gate("smoke", ""), gate("size", "2 bytes")]);
    assert_eq!(added.attestations, [stated("sbom", "a"), stated("gate-size", "c")]);
    assert_eq!(records.artifact("shop-1").await.unwrap(), Some(added));
    let absent = records.add_statements("shop-2", Vec::new(), Vec::new()).await.unwrap_err();
    assert!(absent.to_string().contains("`shop-2` is not recorded"), "{absent}");
}

#[tokio::test]
async fn artifacts_are_listed_newest_first_through_all_pages() {
    let (_directory, records) = records();
    for number in 0..600 {
        let name = if number % 300 == 0 { "rare" } else { "shop" };
        let artifact = Artifact { name: name.into(), ..artifact(&format!("{number}"), b"one") };
        records.put_artifact(artifact).await.unwrap();
    }
    let ids = async |name, limit| {
        let found = records.artifacts(name, limit).await.unwrap();
        found.into_iter().map(|artifact| artifact.id).collect::<Vec<String>>()
    };
    assert_eq!(ids("", 2).await, ["599", "598"]);
    assert_eq!(ids("rare", 10).await, ["300", "0"]);
    assert_eq!(ids("", 10_000).await.len(), 600);
}

#[tokio::test]
async fn a_build_is_recorded_with_its_request_and_ends_with_its_last_event() {
    let (_directory, records) = records();
    let request = SubmitRequest { request_id: "once".into(), user: "ann".into(), ..Default::default() };
    records.submit(&build("a", Status::Running), &request).await.unwrap();
    assert_eq!(records.request("once").await.unwrap().as_deref(), Some("a"));
    assert_eq!(records.unfinished().await.unwrap(), [(build("a", Status::Running), request)]);
    let events = records.new_events("a");
    events.append(warning("one"));
    records.finish(&build("a", Status::Succeeded), (&events, warning("last")), &[]).await.unwrap();
    assert!(records.unfinished().await.unwrap().is_empty());
    let told = records.events("a", 0).await.unwrap();
    let offsets: Vec<u64> = told.iter().map(|event| event.offset).collect();
    assert_eq!((offsets, told[1].event.clone()), (vec![0, 1], Some(warning("last"))));
    assert!(records.events("a", 2).await.unwrap().is_empty());
}

async fn submitted(records: &Records, build: &Build) {
    let request = SubmitRequest { request_id: format!("request-{}", build.id), ..Default::default() };
    records.submit(build, &request).await.unwrap();
    let events = records.new_events(&build.id);
    if build.status() == Status::Running {
        events.append(warning("began"));
    } else {
        records.finish(build, (&events, warning("ended")), &[]).await.unwrap();
    }
}

async fn ids(records: &Records) -> Vec<String> {
    records.builds(1_000).await.unwrap().into_iter().map(|build| build.id).collect()
}

#[tokio::test]
async fn builds_beyond_a_number_are_forgotten_oldest_first_but_none_that_runs() {
    let (_directory, records) = records();
    for (id, status) in
        [("a", Status::Running), ("b", Status::Failed), ("c", Status::Succeeded), ("d", Status::Running)]
    {
        submitted(&records, &build(id, status)).await;
    }
    let keep = |builds| Keep { builds: Some(builds), age: None };
    assert_eq!(records.trim(&keep(4)).await.unwrap(), 0);
    assert_eq!(records.trim(&keep(3)).await.unwrap(), 0, "`a` runs");
    assert_eq!(records.trim(&keep(2)).await.unwrap(), 1);
    assert_eq!(ids(&records).await, ["d", "c", "a"]);
    assert_eq!(records.request("request-b").await.unwrap(), None);
    assert!(records.events("b", 0).await.unwrap().is_empty());
    assert_eq!(records.trim(&keep(1)).await.unwrap(), 1);
    assert_eq!(ids(&records).await, ["d", "a"], "expected the running ones to stay");
    records.trim(&keep(1)).await.unwrap();
    assert_eq!(ids(&records).await, ["d", "a"]);
    assert_eq!(records.request("request-a").await.unwrap().as_deref(), Some("a"));
}

#[tokio::test]
async fn builds_beyond_an_age_are_forgotten_by_when_they_ended() {
    let (_directory, records) = records();
    let ago = |hours: i64| {
        let now = kiln_proto::clock::now();
        Some(Timestamp { seconds: now.seconds - hours * 3_600, ..now })
    };
    let ended =
        |id: &str, began, ended| Build { started: ago(began), finished: ago(ended), ..build(id, Status::Succeeded) };
    // More than are read at a time.
    for number in 0..150 {
        let id = format!("a{number:03}");
        submitted(&records, &ended(&id, 100, 90)).await;
    }
    let running = Build { started: ago(99), ..build("b", Status::Running) };
    let others = [running, ended("c", 50, 1), ended("d", 49, 40), ended("e", 2, 1)];
    for build in &others {
        submitted(&records, build).await;
    }
    let keep = Keep { builds: None, age: Some(std::time::Duration::from_secs(24 * 3_600)) };
    assert_eq!(records.trim(&keep).await.unwrap(), 151);
    assert_eq!(ids(&records).await, ["e", "c", "b"]);
    assert_eq!(records.trim(&"1,1d".parse().unwrap()).await.unwrap(), 1, "both bounds hold");
    assert_eq!(ids(&records).await, ["e", "b"]);
}

#[tokio::test]
async fn calls_are_recorded_with_the_end_and_are_made_until_their_outcome_is() {
    use kiln_proto::v1::notification::State;
    use kiln_proto::v1::{Notification, NotificationQueued};
    let (_directory, records) = records();
    let call = |id: &str, state: State| {
        let shown = Notification { id: id.into(), state: state.into(), ..Notification::default() };
        NotificationQueued { build: "a".into(), notification: Some(shown), ..NotificationQueued::default() }
    };
    let calls = [call("1", State::Pending), call("2", State::GivenUp), call("3", State::Pending)];
    let events = records.new_events("a");
    records.finish(&build("a", Status::Failed), (&events, warning("ended")), &calls).await.unwrap();
    let ids = |found: Vec<Notification>| found.into_iter().map(|shown| shown.id).collect::<Vec<_>>();
    assert_eq!(ids(records.notifications("a").await.unwrap()), ["1", "2", "3"]);

    // Page by page, without what was given up from the start.
    let first = records.queued("", 1).await.unwrap();
    let second = records.queued(&first[0].0, 9).await.unwrap();
    assert_eq!((records.queue_length().await.unwrap(), second.len()), (2, 1));
    assert_eq!(first[0], (Records::queue_key("a", 0), calls[0].clone()));

    // One that failed stays, and one that was accepted does not.
    let again = NotificationQueued { due: Some(Timestamp { seconds: 9, nanos: 0 }), ..calls[0].clone() };
    records.attempted(&first[0].0, &again).await.unwrap();
    assert_eq!(records.queued_call(&first[0].0).await.unwrap(), Some(again));
    records.attempted(&second[0].0, &call("3", State::Delivered)).await.unwrap();
    assert_eq!(records.queue_length().await.unwrap(), 1);
    assert_eq!(records.notifications("a").await.unwrap()[2].state(), State::Delivered);

    // Whoever deletes the build deletes its calls, and an attempt that ends later brings none back.
    records.finish(&build("b", Status::Failed), (&records.new_events("b"), warning("ended")), &[]).await.unwrap();
    assert_eq!(records.trim(&Keep { builds: Some(1), age: None }).await.unwrap(), 1);
    records.attempted(&first[0].0, &call("1", State::Delivered)).await.unwrap();
    assert!(records.notifications("a").await.unwrap().is_empty() && records.queue_length().await.unwrap() == 0);
}

#[tokio::test]
async fn verifications_are_added_beside_an_artifact_whose_record_stays() {
    let (_dir, records) = records();
    let first = records.put_artifact(artifact("shop-1", b"one")).await.unwrap();
    for number in 0..25 {
        let found = Reproducibility { build: format!("build-{number}"), ..Reproducibility::default() };
        records.add_reproducibility("shop-1", &found).await.unwrap();
    }
    let found = records.reproducibility("shop-1").await.unwrap();
    assert_eq!((found.len(), found[0].build.as_str(), found[19].build.as_str()), (20, "build-24", "build-5"));
    assert_eq!(records.artifact("shop-1").await.unwrap(), Some(first.clone()), "the record has none of them");
    let other = records.put_artifact(artifact("shop-2", b"two")).await.unwrap();
    let all = records.with_reproducibility(vec![other, first]).await.unwrap();
    assert_eq!((all[0].reproducibility.len(), all[1].reproducibility.len()), (0, 20));
}
