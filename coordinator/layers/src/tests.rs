//! Tests of step results over real stores on disk.

use futures::FutureExt;
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1;
use kiln_proto::v1::difference::Kind;
use kiln_proto::v1::step_run::Reason;
use kiln_trees::tree::{Entry, Tree};

use super::*;
use kiln_store::trees::store_tree;

const F: DigestFunction = DigestFunction::Sha256;

struct Fixture {
    layers: Layers,
    stores: Stores,
    _dir: tempfile::TempDir,
}

async fn open() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::open(&kiln_store::Config::on_disk(dir.path().to_owned(), 1 << 30)).await.unwrap();
    let records = own::tests::open(dir.path(), 100).await;
    Fixture { layers: Layers::spawn(Arc::new(records), stores.clone()), stores, _dir: dir }
}

fn reference(step: &str) -> StepRef {
    StepRef { step: step.into(), platform: "linux/amd64".into(), target: "prod".into(), shard: 0, shards: 1 }
}

fn file(text: &str) -> Entry {
    Entry::file(F.digest(text.as_bytes()), false)
}

impl Fixture {
    /// A run whose action and output are derived from `action` and `output`, with these input files.
    async fn ran(&self, project: &str, action: &str, output: &str, cache: Cache, inputs: &[(&str, &str)]) -> Ran {
        let mut tree = Tree::default();
        inputs.iter().for_each(|(path, text)| tree.insert(path, file(text)).unwrap());
        let root = store_tree(&*self.stores.blobs, F, &tree).await.unwrap();
        let data: bytes::Bytes = output.to_owned().into();
        let digest = F.digest(&data);
        self.stores.blobs.put(&digest, data).await.unwrap();
        let output = reapi::OutputFile { path: "out".into(), digest: Some(digest.to_wire()), ..Default::default() };
        let result = reapi::ActionResult { output_files: vec![output], ..Default::default() };
        let action = F.digest(action.as_bytes());
        self.stores.actions.put("", &action, result.clone()).await.unwrap();
        Ran {
            instance: String::new(),
            project: project.into(),
            step: reference("deps"),
            build: "b".into(),
            user: "ann".into(),
            action,
            cache,
            ok: true,
            no_cache: false,
            cacheable: true,
            again: false,
            environment: "f1".into(),
            os: "debian:12".into(),
            result,
            ingredients: async move { Ok(Ingredients { input_root: root.to_string(), ..Default::default() }) }.boxed(),
        }
    }

    async fn record(&self, project: &str, action: &str, output: &str, cache: Cache, inputs: &[(&str, &str)]) {
        self.layers.record(self.ran(project, action, output, cache, inputs).await);
    }

    async fn prune(&self, project: &str, older_than: Duration, dry_run: bool) -> v1::PruneLayersResponse {
        let prune = Prune { project: project.into(), step: String::new(), older_than, dry_run };
        self.layers.prune("", &prune).await.unwrap()
    }

    async fn cached(&self, action: &str) -> bool {
        self.stores.cached_result("", &F.digest(action.as_bytes())).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn a_changed_file_is_named_with_both_digests_however_deep_it_lies() {
    let fixture = open().await;
    let before = [("a/b/lock", "one"), ("a/same", "same"), ("gone/x", "x")];
    fixture.record("p", "1", "out", Cache::Miss, &before).await;
    fixture.record("p", "2", "out", Cache::Miss, &[("a/b/lock", "two"), ("a/same", "same"), ("new", "new")]).await;
    let explained = fixture.layers.explain("", "p", "deps", "").await.unwrap();
    let one = &explained.explanations[0];
    assert_eq!(one.run.as_ref().unwrap().reason(), Reason::Changed);
    let digest = |text: &str| Some(F.digest(text.as_bytes()).to_string());
    let found: Vec<_> = one
        .differences
        .iter()
        .map(|one| (one.kind(), one.name.as_str(), one.before.clone(), one.after.clone()))
        .collect();
    let expected = [
        (Kind::Input, "a/b/lock", digest("one"), digest("two")),
        (Kind::Input, "gone/x", digest("x"), None),
        (Kind::Input, "new", None, digest("new")),
    ];
    assert_eq!(found, expected);
    assert_eq!(explained.steps, ["deps"]);
    assert!(fixture.layers.explain("other", "p", "deps", "").await.unwrap().explanations.is_empty());
}

#[tokio::test]
async fn an_input_tree_that_was_evicted_is_named_as_a_whole() {
    let fixture = open().await;
    fixture.record("p", "1", "out", Cache::Miss, &[("lock", "one")]).await;
    let mut ran = fixture.ran("p", "2", "out", Cache::Miss, &[]).await;
    let gone = F.digest(b"a directory that is not stored").to_string();
    ran.ingredients = async move { Ok(Ingredients { input_root: gone, ..Default::default() }) }.boxed();
    fixture.layers.record(ran);
    let explained = fixture.layers.explain("", "p", "deps", "").await.unwrap();
    let differences = &explained.explanations[0].differences;
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences[0].name.contains("the whole tree"), "{differences:?}");
}

#[tokio::test]
async fn very_many_changed_files_are_cut_and_that_is_said() {
    let fixture = open().await;
    let names: Vec<String> = (0..300).map(|index| format!("{index}")).collect();
    let tree = |text| names.iter().map(|name| (name.as_str(), text)).collect::<Vec<_>>();
    fixture.record("p", "1", "out", Cache::Miss, &tree("one")).await;
    fixture.record("p", "2", "out", Cache::Miss, &tree("two")).await;
    let explained = fixture.layers.explain("", "p", "deps", "").await.unwrap();
    assert_eq!(
        (explained.explanations[0].differences.len(), explained.explanations[0].more),
        (inputs::MAX_DIFFERENCES, true)
    );
}

#[tokio::test]
async fn bytes_that_two_layers_name_are_unique_to_neither() {
    let fixture = open().await;
    fixture.record("one", "1", "shared", Cache::Miss, &[]).await;
    fixture.record("two", "2", "shared", Cache::Miss, &[]).await;
    fixture.record("three", "3", "its own", Cache::Miss, &[]).await;
    let listed = fixture.layers.list("", "", "").await.unwrap();
    let mut sizes: Vec<_> =
        listed.iter().map(|layer| (layer.project.as_str(), layer.size_bytes, layer.unique_bytes)).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [("one", 6, 0), ("three", 7, 7), ("two", 6, 0)]);
    assert!(listed.iter().all(|layer| !layer.evicted));
    fixture.stores.actions.remove("", &F.digest(b"3")).await.unwrap();
    assert!(fixture.layers.list("", "three", "").await.unwrap()[0].evicted);
}

#[tokio::test]
async fn a_pruned_layer_is_no_hit_any_more_and_what_it_frees_is_only_its_own() {
    let fixture = open().await;
    fixture.record("one", "1", "shared", Cache::Miss, &[]).await;
    fixture.record("one", "2", "its own", Cache::Miss, &[]).await;
    fixture.record("two", "3", "shared", Cache::Miss, &[]).await;
    assert!(fixture.prune("one", Duration::from_secs(3600), false).await.layers.is_empty());
    let dry = fixture.prune("one", Duration::ZERO, true).await;
    assert_eq!((dry.layers.len(), dry.freeable_bytes, fixture.cached("1").await), (2, 7, true));
    let pruned = fixture.prune("one", Duration::ZERO, false).await;
    assert_eq!((pruned.layers.len(), pruned.freeable_bytes), (2, 7));
    assert_eq!((fixture.cached("1").await, fixture.cached("2").await, fixture.cached("3").await), (false, false, true));
    let left = fixture.layers.list("", "", "").await.unwrap();
    assert_eq!(left.iter().map(|layer| layer.project.as_str()).collect::<Vec<_>>(), ["two"]);
    fixture.record("one", "2", "its own", Cache::Miss, &[]).await;
    let explained = fixture.layers.explain("", "one", "deps", "").await.unwrap();
    assert_eq!(explained.explanations[0].run.as_ref().unwrap().reason(), Reason::Pruned);
}

#[tokio::test]
async fn an_action_that_another_project_still_uses_stays_cached() {
    let fixture = open().await;
    fixture.record("one", "1", "out", Cache::Miss, &[]).await;
    fixture.record("two", "1", "out", Cache::Hit, &[]).await;
    let pruned = fixture.prune("one", Duration::ZERO, false).await;
    assert_eq!((pruned.layers.len(), pruned.shared, fixture.cached("1").await), (0, 1, true));
}

#[tokio::test]
async fn ingredients_that_cannot_be_worked_out_leave_the_rest_of_the_record() {
    let fixture = open().await;
    fixture.record("p", "1", "out", Cache::Miss, &[]).await;
    let mut ran = fixture.ran("p", "2", "out", Cache::Miss, &[]).await;
    ran.ingredients = async { Err("gone".to_owned()) }.boxed();
    fixture.layers.record(ran);
    let explained = fixture.layers.explain("", "p", "deps", "").await.unwrap();
    assert!(explained.explanations[0].forgotten);
    let stats = fixture.layers.stats("", "", "").await.unwrap();
    assert_eq!(stats.total.unwrap().misses, 2);
}
