//! `kiln cache` on a farm of real processes: what is cached, what that saves, and why a step missed.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_harness::{Farm, Ran, project, until, write};
use serde_json::Value;

fn config(project: &str, compiler: &str) -> String {
    format!(
        r#"
name = "{project}"
version = "1"
[steps.deps]
inputs = ["deps.lock"]
run = "mkdir vendor; cp deps.lock vendor/copy; seq 20000 > vendor/large"
outputs = ["vendor"]
env = {{ COMPILER = "{compiler}" }}
[steps.compile]
needs = ["deps"]
run = "wc -c vendor/large source > out"
outputs = ["out"]
"#
    )
}

fn tree(name: &str) -> tempfile::TempDir {
    project(&[
        ("kiln.toml", &config(name, "gcc")),
        ("deps.lock", &format!("{name} one\n")),
        ("source", "source\n"),
        ("sub/dir/file", "file\n"),
    ])
}

fn json(farm: &Farm, arguments: &[&str]) -> Value {
    let ran = farm.kiln(&[&["cache"], arguments, &["--json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn layer(farm: &Farm, project: &str, step: &str) -> Value {
    let listed = json(farm, &["list", "--project", project, "--step", step]);
    listed.as_array().unwrap().first().cloned().unwrap_or_default()
}

fn explain(farm: &Farm, dir: &Path, step: &str) -> Value {
    let explained = json(farm, &["explain", step, dir.to_str().unwrap()]);
    assert_eq!(explained.as_array().unwrap().len(), 1, "{explained}");
    explained[0].clone()
}

fn names(explained: &Value) -> Vec<(&str, &str)> {
    let differences = explained["differences"].as_array().unwrap();
    differences.iter().map(|one| (one["kind"].as_str().unwrap(), one["name"].as_str().unwrap())).collect()
}

#[test]
fn a_layer_that_was_built_and_hit_is_listed_and_the_counts_add_up() {
    let farm = Farm::shared();
    let dir = tree("listed");
    farm.build(dir.path(), &[]).well();
    let deps = layer(farm, "listed", "deps");
    assert_eq!((&deps["hits"], &deps["last_hit"], &deps["evicted"]), (&0.into(), &Value::Null, &false.into()));
    farm.build(dir.path(), &[]).well();
    let deps = layer(farm, "listed", "deps");
    assert_eq!((deps["hits"].as_u64(), deps["last_hit"].is_string()), (Some(1), true), "{deps}");
    assert_eq!((&deps["platform"], &deps["user"]), (&"linux/amd64".into(), &"tester".into()));
    let size = deps["size_bytes"].as_u64().unwrap();
    assert!(size > 100_000, "the directory's files count: {deps}");

    let stats = json(farm, &["stats", "--project", "listed"]);
    assert_eq!((&stats["total"]["hits"], &stats["total"]["misses"]), (&2.into(), &2.into()));
    assert_eq!(stats["total"]["hit_rate"], 0.5);
    let sum = |list: &str, what: &str| -> u64 {
        stats[list].as_array().unwrap().iter().map(|one| one[what].as_u64().unwrap()).sum()
    };
    for what in ["hits", "misses", "merged", "saved_bytes"] {
        assert_eq!(Some(sum("steps", what)), stats["total"][what].as_u64(), "{stats}");
        assert_eq!(Some(sum("tenants", what)), stats["total"][what].as_u64(), "{stats}");
    }
    assert_eq!(stats["tenants"][0]["tenant"], "tester");
    let saved = size + layer(farm, "listed", "compile")["size_bytes"].as_u64().unwrap();
    assert_eq!(stats["total"]["saved_bytes"], saved);

    let table = farm.kiln(&["cache", "list", "--project", "listed"]);
    let lines: Vec<&str> = table.out.lines().collect();
    assert!(lines[0].starts_with("project  step     platform"), "{}", table.out);
    assert!(lines.len() == 3 && table.out.contains("s ago"), "{}", table.out);
}

#[test]
fn an_edited_lock_file_is_named_with_both_digests_and_so_is_what_follows_from_it() {
    let farm = Farm::shared();
    let dir = tree("edited");
    farm.build(dir.path(), &[]).well();
    let first = explain(farm, dir.path(), "deps");
    assert_eq!((&first["cache"], &first["reason"]), (&"miss".into(), &"first".into()));
    write(dir.path(), "deps.lock", "edited two\n");
    farm.build(dir.path(), &[]).well();
    let changed = explain(farm, dir.path(), "deps");
    assert_eq!((&changed["reason"], names(&changed)), (&"changed".into(), vec![("input", "deps.lock")]));
    let digest = |text: &str| kiln_proto::digest::DigestFunction::Sha256.digest(text.as_bytes()).to_string();
    let one = &changed["differences"][0];
    assert_eq!((&one["before"], &one["after"]), (&digest("edited one\n").into(), &digest("edited two\n").into()));
    let compile = explain(farm, dir.path(), "compile");
    assert_eq!(names(&compile), [("input", "deps.lock"), ("need", "deps: vendor")], "{compile}");

    write(dir.path(), "sub/dir/file", "other\n");
    farm.build(dir.path(), &[]).well();
    assert_eq!(names(&explain(farm, dir.path(), "compile")), [("input", "sub/dir/file")]);
    let hit = farm.kiln(&["cache", "explain", "deps", dir.path().to_str().unwrap()]);
    assert!(hit.out.contains("hit in build") && hit.out.contains("nothing to explain"), "{}", hit.out);
}

#[test]
fn a_build_that_others_followed_is_explained_by_its_id() {
    let farm = Farm::shared();
    let dir = tree("older");
    let first = farm.build(dir.path(), &[]).well().id();
    write(dir.path(), "deps.lock", "older two\n");
    let second = farm.build(dir.path(), &[]).well().id();
    write(dir.path(), "sub/dir/file", "other\n");
    let third = farm.build(dir.path(), &[]).well().id();
    farm.build(dir.path(), &[]).well();
    let of = |step: &str, build: &str| json(farm, &["explain", step, "--build", build]);
    let compile = of("compile", &second);
    assert_eq!(compile.as_array().unwrap().len(), 1, "{compile}");
    assert_eq!(
        (compile[0]["build"].as_str(), names(&compile[0])),
        (Some(&*second), vec![("input", "deps.lock"), ("need", "deps: vendor")])
    );
    assert_eq!(names(&of("compile", &third)[0]), [("input", "sub/dir/file")]);
    assert_eq!(of("compile", &first)[0]["reason"], "first");
    // From anywhere, and in words.
    let said = |step: &str, build: &str| farm.kiln(&["cache", "explain", step, "--build", build]);
    let words = said("deps", &second);
    assert!(words.code == 0 && words.out.contains(&second) && words.out.contains("deps.lock"), "{words:?}");
    let hit = said("deps", &third);
    assert!(hit.code == 0 && hit.out.contains(&format!("deps was a hit in build {third}")), "{hit:?}");
    let other = said("lint", &third);
    assert!(other.out.contains(&format!("`lint` has not run in build {third}; those that have: ")), "{other:?}");
    let refused = farm.kiln(&["cache", "explain", "deps", "--build", &third, "--project", "older"]);
    assert!(refused.code == 2 && refused.err.contains("--project"), "{refused:?}");
    assert_eq!(said("deps", "0123456789").code, 2);
}

#[test]
fn a_build_says_once_how_to_learn_why_steps_missed_that_hit_before() {
    let farm = Farm::shared();
    let dir = tree("hinted");
    let build = || {
        let mut command = farm.command(&["build", "--progress", "plain"]);
        command.current_dir(dir.path());
        let ran = Ran::from(command);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.err
    };
    let hint = "deps was cached before but had to run; `kiln cache explain deps` shows why";
    assert!(!build().contains("explain"), "expected no hint if nothing was cached");
    assert!(!build().contains("explain"), "expected no hint if every step hit");
    // Hits are recorded a moment after the build; a query waits for that.
    layer(farm, "hinted", "deps");
    write(dir.path(), "deps.lock", "hinted two\n");
    let words = build();
    assert_eq!((words.matches("explain").count(), words.matches(hint).count()), (1, 1), "{words}");
    layer(farm, "hinted", "deps");
    write(dir.path(), "deps.lock", "hinted three\n");
    let json = farm.build(dir.path(), &[]).well();
    assert!(!json.0.out.contains("explain") && !json.0.err.contains("explain"), "{} {}", json.0.out, json.0.err);
    let told = Ran::from({
        let mut command = farm.command(&["build", "--progress", "plain", "--no-cache"]);
        command.current_dir(dir.path());
        command
    });
    assert!(!told.err.contains("explain"), "expected no hint if every step had to run: {}", told.err);
}

#[test]
fn a_changed_variable_is_named_with_both_values() {
    let farm = Farm::shared();
    let dir = tree("variable");
    farm.build(dir.path(), &[]).well();
    write(dir.path(), "kiln.toml", &config("variable", "clang"));
    farm.build(dir.path(), &[]).well();
    let told = farm.kiln(&["cache", "explain", "deps", "--project", "variable"]);
    let line = told.out.lines().find(|line| line.contains("COMPILER")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["variable", "COMPILER", "gcc", "clang"], "{}", told.out);
    assert!(told.out.contains("changed since its last hit or success"), "{}", told.out);
    let platform = config("variable", "clang").replace("env =", "cpus = 0.5\nenv =");
    write(dir.path(), "kiln.toml", &platform);
    farm.build(dir.path(), &[]).well();
    assert_eq!(names(&explain(farm, dir.path(), "deps")), [("platform", "kiln.cpus")]);
}

#[test]
fn a_pruned_layer_misses_and_is_said_to_be_pruned() {
    let farm = Farm::shared();
    let dir = tree("pruned");
    farm.build(dir.path(), &[]).well();
    let prune = ["prune", "--project", "pruned", "--step", "deps", "--older-than"];
    assert_eq!(json(farm, &[&prune[..], &["30d"]].concat())["layers"], Value::Array(Vec::new()));
    let dry = json(farm, &[&prune[..], &["0s", "--dry-run"]].concat());
    assert_eq!(dry["layers"].as_array().unwrap().len(), 1);
    assert!(
        farm.build(dir.path(), &[]).well().caches().values().all(|cache| cache == "hit"),
        "expected a dry run to drop nothing"
    );
    let pruned = farm.kiln(&[&["cache"], &prune[..], &["0s"]].concat());
    assert!(
        pruned.out.contains("deps") && pruned.err.contains("dropped 1 step result"),
        "{} {}",
        pruned.out,
        pruned.err
    );
    assert_eq!(layer(farm, "pruned", "deps"), Value::Null);
    let caches = farm.build(dir.path(), &[]).well().caches();
    assert_eq!([&caches["deps"], &caches["compile"]], ["miss", "hit"]);
    assert_eq!(explain(farm, dir.path(), "deps")["reason"], "pruned");
    let words = farm.kiln(&["cache", "explain", "deps", "--project", "pruned"]);
    assert!(words.out.contains("cached result was pruned"), "{}", words.out);
    assert_eq!(layer(farm, "pruned", "deps")["step"], "deps", "expected it to be cached again");
}

#[test]
fn what_was_told_to_run_what_is_never_cached_and_what_failed_are_told_apart() {
    let farm = Farm::shared();
    let dir = tree("reasons");
    farm.build(dir.path(), &[]).well();
    farm.build(dir.path(), &["--no-cache"]).well();
    assert_eq!(explain(farm, dir.path(), "deps")["reason"], "no_cache");
    let uncached = "name = \"uncached\"\nversion = \"1\"\n[steps.work]\nrun = \"true\"\ncache = false\n";
    let dir = project(&[("kiln.toml", uncached)]);
    farm.build(dir.path(), &[]).well();
    farm.build(dir.path(), &[]).well();
    assert_eq!(explain(farm, dir.path(), "work")["reason"], "not_cached");
    assert_eq!(json(farm, &["list", "--project", "uncached"]), Value::Array(Vec::new()));
    let dir = project(&[("kiln.toml", "name = \"failing\"\nversion = \"1\"\n[steps.work]\nrun = \"exit 3\"\n")]);
    farm.build(dir.path(), &[]);
    farm.build(dir.path(), &[]);
    let failed = explain(farm, dir.path(), "work");
    assert_eq!((&failed["reason"], &failed["ok"]), (&"failed_before".into(), &false.into()));
}

#[test]
fn shards_that_missed_for_one_reason_are_told_of_once() {
    let farm = Farm::shared();
    let with = |run: &str| {
        format!("name = \"sharded\"\nversion = \"1\"\n[steps.test]\nrun = \"{run} $KILN_SHARD\"\nshards = 3\n")
    };
    let dir = project(&[("kiln.toml", &with("echo one"))]);
    farm.build(dir.path(), &[]).well();
    write(dir.path(), "kiln.toml", &with("echo two"));
    farm.build(dir.path(), &[]).well();
    let told = farm.kiln(&["cache", "explain", "test", "--project", "sharded"]);
    assert!(told.out.starts_with("test[1,2,3/3] linux/amd64: missed"), "{}", told.out);
    assert_eq!(told.out.matches("echo one").count(), 1, "{}", told.out);
}

#[test]
fn bytes_that_two_projects_share_are_not_unique_to_either() {
    let farm = Farm::shared();
    let (one, two) = (tree("sharing-one"), tree("sharing-two"));
    farm.build(one.path(), &[]).well();
    farm.build(two.path(), &[]).well();
    for project in ["sharing-one", "sharing-two"] {
        let deps = layer(farm, project, "deps");
        let (size, unique) = (deps["size_bytes"].as_u64().unwrap(), deps["unique_bytes"].as_u64().unwrap());
        assert!(size > 100_000 && unique > 0 && unique < 10_000, "{deps}");
    }
}

#[test]
fn a_step_that_never_ran_and_one_that_is_none_are_told_apart() {
    let farm = Farm::shared();
    let dir = tree("never");
    let never = farm.kiln(&["cache", "explain", "deps", dir.path().to_str().unwrap()]);
    assert_eq!((never.code, never.out.contains("has never run")), (0, true), "{} {}", never.out, never.err);
    let none = farm.kiln(&["cache", "explain", "nothing", dir.path().to_str().unwrap()]);
    assert_eq!(none.code, 2);
    assert!(none.err.contains("`nothing`") && none.err.contains("deps, compile"), "{}", none.err);
    let bad = farm.kiln(&["cache", "prune", "--older-than", "soon"]);
    assert_eq!((bad.code, bad.err.contains("30d")), (2, true), "{}", bad.err);
}

#[test]
fn an_instance_does_not_see_the_layers_of_another() {
    use kiln_proto::v1::cache_client::CacheClient;
    use kiln_proto::v1::{ExplainRequest, ListLayersRequest, PruneLayersRequest};
    let farm = Farm::shared();
    let dir = tree("tenant");
    farm.build(dir.path(), &[]).well();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = CacheClient::new(kiln_proto::channel::connect(&farm.url, &Default::default()).await.unwrap());
        let instance = "other".to_owned();
        let list = ListLayersRequest { instance: instance.clone(), ..Default::default() };
        assert!(client.list(list).await.unwrap().into_inner().layers.is_empty());
        let prune = PruneLayersRequest {
            instance: instance.clone(),
            older_than: Some(kiln_proto::protobuf::Duration::default()),
            ..Default::default()
        };
        assert!(client.prune(prune).await.unwrap().into_inner().layers.is_empty());
        let explain =
            ExplainRequest { instance, project: "tenant".into(), step: "deps".into(), ..ExplainRequest::default() };
        let explained = client.explain(explain).await.unwrap().into_inner();
        assert!(explained.explanations.is_empty() && explained.steps.is_empty());
        let refused = client.prune(PruneLayersRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    });
    assert!(farm.build(dir.path(), &[]).well().caches().values().all(|cache| cache == "hit"));
}

#[test]
fn layers_outlive_the_coordinator() {
    let farm = Farm::start(&["only"]);
    let dir = tree("lasting");
    farm.build(dir.path(), &[]).well();
    farm.build(dir.path(), &[]).well();
    // A query waits until what builds reported is on the disk.
    assert_eq!(layer(&farm, "lasting", "deps")["hits"], 1);
    farm.restart_coordinator();
    let listed = until("the coordinator to be back", || {
        let ran = farm.kiln(&["cache", "list", "--project", "lasting", "--step", "deps", "--json"]);
        (ran.code == 0).then(|| serde_json::from_str::<Value>(&ran.out).unwrap())
    });
    assert_eq!((&listed[0]["hits"], &listed[0]["evicted"]), (&1.into(), &false.into()));
}
