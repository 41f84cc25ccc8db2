//! Builds and artifacts left by an earlier run of the coordinator.

use std::path::Path;

use kiln_journal::Fsync;
use kiln_layers::OwnLayers;
use kiln_proto::v1::{self, Artifact, Event, Status as BuildStatus, event};
use kiln_scheduler::Config as Scheduling;
use prost::Message;
use redb::TableDefinition;

use super::*;

const ID: &str = "0123456789abcdef";

/// The builds of a coordinator that starts in this directory.
/// Records in a temporary directory.
pub(crate) fn records() -> (tempfile::TempDir, Records) {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&directory.path().join("journal.redb"), Fsync::default()).unwrap();
    (directory, Records::over(journal))
}

fn build(id: &str, status: BuildStatus) -> Build {
    Build { id: id.into(), status: status.into(), ..Build::default() }
}

async fn started(dir: &Path) -> Builds {
    let stores = Stores::open(&kiln_store::Config::on_disk(dir.to_owned(), 1 << 30)).await.unwrap();
    let execution = ExecutionHandle::spawn(stores.clone(), Scheduling::default());
    let journal = Journal::open(&dir.join("journal.redb"), Fsync::default()).unwrap();
    let layers = OwnLayers::open(journal.clone(), &dir.join("layers.redb"), 10).await.unwrap();
    let layers = Layers::spawn(Arc::new(layers), stores.clone());
    Builds::open(journal, &dir.join("builds"), stores, execution, layers, Settings::default()).await.unwrap()
}

/// A request whose sources are missing.
fn request() -> SubmitRequest {
    let root = DigestFunction::Sha256.digest(b"a tree that is nowhere");
    let source = v1::Source { root: Some(root.to_wire()), ..v1::Source::default() };
    SubmitRequest { source: Some(source), ..SubmitRequest::default() }
}

async fn last_event(builds: &Builds, id: &str) -> (u64, event::Event) {
    let (mut events, mut last) = (builds.watch(id, 0).await.unwrap(), None);
    while let Some(event) = events.recv().await {
        last = Some(event.unwrap());
    }
    let last = last.expect("expected events");
    (last.offset, last.event.unwrap())
}

#[tokio::test]
async fn whoever_asks_for_an_unfinished_build_before_it_goes_on_sees_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("journal.redb"), Fsync::default()).unwrap();
    Records::over(journal.clone()).submit(&build(ID, BuildStatus::Running), &request()).await.unwrap();
    closed(journal).await;
    let builds = started(dir.path()).await;
    assert_eq!(builds.get(ID).await.unwrap().status(), BuildStatus::Running);
    let (_, event::Event::BuildFinished(finished)) = last_event(&builds, ID).await else { panic!("expected its end") };
    assert_eq!(finished.status(), BuildStatus::FarmFailed);
    assert!(finished.message.contains("could not resume the build"), "{}", finished.message);
    assert_eq!(builds.get(ID).await.unwrap().status(), BuildStatus::FarmFailed);
}

/// Waits until the journal's file can be opened again.
async fn closed(journal: Journal) {
    journal.settle().await.unwrap();
    let ended = journal.ended();
    drop(journal);
    ended.await;
}

/// What an earlier version left behind: a build that ended, one that did not, and an artifact.
fn of_an_earlier_version(directory: &Path) {
    let events = directory.join("events");
    std::fs::create_dir_all(&events).unwrap();
    let database = kiln_state::database::open(&directory.join("index.redb"), 1 << 20).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut builds = write.open_table(TableDefinition::<&str, &[u8]>::new("builds")).unwrap();
        for build in [build("0001", BuildStatus::Succeeded), build(ID, BuildStatus::Running)] {
            builds.insert(build.id.as_str(), build.encode_to_vec().as_slice()).unwrap();
        }
        let mut requests = write.open_table(TableDefinition::<&str, &str>::new("requests")).unwrap();
        requests.insert("request-1", "0001").unwrap();
        let mut artifacts = write.open_table(TableDefinition::<&str, &[u8]>::new("artifacts")).unwrap();
        let mut order = write.open_table(TableDefinition::<u64, &str>::new("artifact_order")).unwrap();
        for (number, id) in [(9, "shop-1"), (10, "shop-2")] {
            let artifact = Artifact { id: id.into(), name: "shop".into(), ..Default::default() };
            artifacts.insert(id, artifact.encode_to_vec().as_slice()).unwrap();
            order.insert(number, id).unwrap();
        }
    }
    write.commit().unwrap();
    let mut file = Vec::new();
    let told = ["one", "two"].map(|text| event::Event::Warning(v1::Warning { text: text.into() }));
    let end = v1::BuildFinished { build: "0001".into(), ..Default::default() };
    for (offset, event) in told.into_iter().chain([event::Event::BuildFinished(end)]).enumerate() {
        let data = Event { offset: offset as u64, at: None, event: Some(event) }.encode_to_vec();
        file.extend_from_slice(&(data.len() as u32).to_le_bytes());
        file.extend_from_slice(&data);
    }
    std::fs::write(events.join("0001"), &file).unwrap();
    // The coordinator was killed while it wrote the last event.
    std::fs::write(events.join(ID), &file[..file.len() - 3]).unwrap();
    std::fs::write(events.join(format!("{ID}.request")), request().encode_to_vec()).unwrap();
}

#[tokio::test]
async fn builds_and_artifacts_of_an_earlier_version_are_imported_once() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("builds");
    of_an_earlier_version(&old);
    let builds = started(dir.path()).await;
    let (offset, last) = last_event(&builds, "0001").await;
    assert!(matches!((offset, last), (2, event::Event::BuildFinished(_))));
    assert_eq!(builds.get("0001").await.unwrap().status(), BuildStatus::Succeeded);
    assert_eq!(builds.of_request("request-1").await.unwrap(), "0001");
    let artifacts = builds.records().artifacts("shop", 10).await.unwrap();
    assert_eq!(artifacts.iter().map(|artifact| artifact.id.as_str()).collect::<Vec<_>>(), ["shop-2", "shop-1"]);
    builds.records().put_artifact(Artifact { id: "shop-3".into(), ..Default::default() }).await.unwrap();
    assert_eq!(builds.records().artifacts("", 1).await.unwrap()[0].id, "shop-3", "the numbers continue");
    // The unfinished one is resumed with its request, after the events it had recorded.
    let (offset, last) = last_event(&builds, ID).await;
    let event::Event::BuildFinished(finished) = last else { panic!("expected its end") };
    assert!(offset >= 2 && finished.message.contains("could not resume the build"), "{offset}: {finished:?}");
    assert!(builds.records().unfinished().await.unwrap().is_empty());
    assert!(!old.exists(), "expected what was imported to be removed");
}

#[tokio::test]
async fn an_import_that_was_interrupted_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("builds");
    of_an_earlier_version(&old);
    let (_other, records) = records();
    // The journal was written, but the old files were not removed yet.
    let copy = tempfile::tempdir().unwrap();
    of_an_earlier_version(&copy.path().join("builds"));
    records.import(&copy.path().join("builds")).await.unwrap();
    records.import(&old).await.unwrap();
    assert_eq!(records.builds(10).await.unwrap().len(), 2);
    assert_eq!(records.events("0001", 0).await.unwrap().len(), 3);
    assert_eq!(records.artifacts("", 10).await.unwrap().len(), 2);
    assert!(!old.exists() && !old.with_extension("imported").exists());
    std::fs::create_dir_all(&old).unwrap();
    std::fs::write(old.join("notes"), "of somebody").unwrap();
    records.import(&old).await.unwrap();
    assert!(old.join("notes").exists(), "a directory without an index is not one of builds");
    std::fs::write(old.join("index.redb"), "notes of somebody").unwrap();
    let refused = records.import(&old).await.unwrap_err().to_string();
    assert!(refused.contains("cannot import the builds of an earlier version"), "{refused}");
    assert!(old.join("index.redb").exists(), "nothing is removed that was not imported");
}

#[tokio::test]
async fn a_source_that_the_client_did_not_look_for_must_be_complete() {
    let dir = tempfile::tempdir().unwrap();
    let builds = started(dir.path()).await;
    let (function, store) = (DigestFunction::Sha256, &*builds.shared.stores.blobs);
    let config = b"[steps.one]\nrun = \"true\"\n";
    let (file, times) = (function.digest(config), function.digest(b"times"));
    let mut tree = kiln_trees::tree::Tree::default();
    tree.insert("kiln.toml", kiln_trees::tree::Entry::file(file, false)).unwrap();
    let other = function.digest(b"a source");
    tree.insert("src/main.c", kiln_trees::tree::Entry::file(other, false)).unwrap();
    store.put(&file, bytes::Bytes::from_static(config)).await.unwrap();
    let root = kiln_store::trees::store_tree(store, function, &tree).await.unwrap();
    let source = v1::Source { root: Some(root.to_wire()), times: Some(times.to_wire()), ..v1::Source::default() };
    let request = SubmitRequest { source: Some(source), check_source: true, ..SubmitRequest::default() };
    let nowhere = SubmitRequest { check_source: true, ..self::request() };
    let missing = |status: &Status| kiln_proto::precondition::subjects(&kiln_proto::precondition::from_tonic(status));
    let refused = builds.submit(request.clone()).await.unwrap_err();
    let mut named = missing(&refused);
    named.sort();
    let mut expected = [other, times].map(|digest| format!("blobs/{digest}"));
    expected.sort();
    assert_eq!(named, expected);
    assert_eq!(missing(&builds.submit(nowhere).await.unwrap_err()).len(), 1, "the root itself");
    assert!(builds.list(10).await.unwrap().is_empty(), "a refused build is not recorded");
    store.put(&other, bytes::Bytes::from_static(b"a source")).await.unwrap();
    store.put(&times, bytes::Bytes::from_static(b"times")).await.unwrap();
    assert!(builds.submit(request.clone()).await.unwrap().source_is_complete);
    let unasked = builds.submit(SubmitRequest { check_source: false, ..request }).await.unwrap();
    assert!(!unasked.source_is_complete, "nothing is said of what was not looked for");
}
