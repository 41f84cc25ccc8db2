//! What an earlier run of the coordinator left.

use super::*;
use kiln_layers::RedbLayers;
use kiln_scheduler::Config as Scheduling;

const ID: &str = "0123456789abcdef";

/// The builds of a coordinator that starts over a directory where one is unfinished.
async fn restarted(dir: &std::path::Path) -> Builds {
    let stores = Stores::open(&kiln_store::Config::on_disk(dir.to_owned(), 1 << 30)).await.unwrap();
    let execution = ExecutionHandle::spawn(stores.clone(), Scheduling::default());
    let layers = Layers::spawn(Arc::new(RedbLayers::open(&dir.join("layers.redb"), 10).unwrap()), stores.clone());
    let builds = dir.join("builds");
    std::fs::create_dir_all(builds.join("events")).unwrap();
    let unfinished = Build { id: ID.to_owned(), status: BuildStatus::Running.into(), ..Build::default() };
    Records::open(&builds.join("index.redb")).unwrap().put_build(&unfinished, "").unwrap();
    // Its sources are gone.
    let root = DigestFunction::Sha256.digest(b"a tree that is nowhere");
    let source = v1::Source { root: Some(root.to_wire()), ..v1::Source::default() };
    let request = SubmitRequest { source: Some(source), ..SubmitRequest::default() };
    std::fs::write(builds.join("events").join(ID).with_extension("request"), prost::Message::encode_to_vec(&request))
        .unwrap();
    Builds::open(builds, stores, execution, layers, Settings::default()).unwrap()
}

#[tokio::test]
async fn whoever_asks_for_an_unfinished_build_before_it_goes_on_sees_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let builds = restarted(dir.path()).await;
    // Nothing was awaited since: what resumes it has not run yet.
    let mut events = builds.watch(ID, 0).unwrap();
    assert_eq!(builds.get(ID).unwrap().status(), BuildStatus::Running);
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = event.unwrap().event;
    }
    let Some(event::Event::BuildFinished(finished)) = last else { panic!("expected its end, found {last:?}") };
    assert_eq!(finished.status(), BuildStatus::FarmFailed);
    assert!(finished.message.contains("could not resume the build"), "{}", finished.message);
    assert_eq!(builds.get(ID).unwrap().status(), BuildStatus::FarmFailed);
}
