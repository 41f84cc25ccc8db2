//! What users see of a step's compiler calls.

use kiln_harness::remote::caller_of;
use kiln_harness::{Farm, find, project, write};
use kiln_proto::digest::{Digest, DigestFunction};
use serde_json::Value;

use super::project::{c_project, calls, config};

#[test]
fn counts_are_told_while_a_step_runs() {
    let run = "mkdir out; for n in 1 2; do cc -c f$n.c -o out/f$n.o || exit 1; done; sleep 6";
    let dir = project(&[("kiln.toml", &config("counted", run, ""))]);
    (1..=2).for_each(|n| write(dir.path(), &format!("f{n}.c"), &format!("int counted_{n};\n")));
    let mut running = Farm::shared().start_build(dir.path(), &[]);
    let told = running.until("counts of calls", |event| {
        assert_ne!(event["type"], "step_finished", "expected counts before the step's end");
        event["type"] == "step_calls" && event["calls"]["compiled"] == 2
    });
    assert_eq!((told["step"].as_str(), told["calls"]["hits"].as_u64()), (Some("build"), Some(0)));
    let built = running.end().well();
    let counted = built.of_type("step_calls").len() + 1;
    assert!(counted <= 3, "expected counts only when they change, and not for each call: {counted}");
}

#[test]
fn explain_names_the_file_that_made_a_call_miss_and_why_calls_were_not_split() {
    let farm = Farm::shared();
    let dir = c_project("explained", "");
    let explain = |json: bool| {
        let more: &[&str] = if json { &["--json"] } else { &[] };
        let directory = dir.path().to_str().unwrap();
        let ran = farm.kiln(&[&["cache", "explain", "build", directory], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    farm.build(dir.path(), &[]).well();
    let first = explain(false);
    assert!(first.contains("compiler calls: 8, of which 0 cached, 7 compiled, 1 not split"), "{first}");
    assert!(first.contains("src/main.c") && first.contains("never compiled before"), "{first}");
    assert!(first.contains("neither `-c` nor `-S` is given, so the call links"), "{first}");

    write(dir.path(), "first/own.h", "#define OWN 78\n");
    write(dir.path(), "src/main.c", "// explained\nint f1(int);\nint main(void) { return f1(1); }\n");
    farm.build(dir.path(), &[]).well();
    let shadowed: Value = serde_json::from_str(&explain(true)).unwrap();
    let mut missed: Vec<(String, String, String)> = shadowed[0]["calls"]["missed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|missed| ["source", "why", "path"].map(|key| missed[key].as_str().unwrap_or_default().to_owned()).into())
        .collect();
    missed.sort();
    // Another `main.c` is another call: its source is part of what identifies it.
    assert_eq!(missed.last(), Some(&("src/main.c".to_owned(), "first".to_owned(), String::new())));
    let others: Vec<_> =
        missed[..missed.len() - 1].iter().map(|(_, why, path)| (why.as_str(), path.as_str())).collect();
    assert_eq!(others, vec![("appeared", "first/own.h"); 6]);

    write(dir.path(), "first/own.h", "#define OWN 9\n");
    farm.build(dir.path(), &[]).well();
    let changed = explain(false);
    let line = changed.lines().find(|line| line.contains("src/f1.c")).unwrap_or_default();
    assert!(line.contains("changed") && line.contains("first/own.h"), "{changed}");
    assert!(changed.contains("of which 1 cached, 6 compiled"), "{changed}");
}

#[test]
fn provenance_names_the_results_of_calls_that_a_step_is_made_of() {
    let farm = Farm::shared();
    let dir = c_project("traced-calls", "");
    // An artifact that is equal to another project's has that one's provenance.
    write(dir.path(), "src/f1.c", "int f1(int x) { return x + 7319; }\n");
    let lists = || {
        let path = find(&dir.path().join("kiln-out"), ".provenance.json").unwrap();
        let provenance: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let calls = provenance["predicate"]["runDetails"]["byproducts"][0]["annotations"]["compilerCalls"].clone();
        let named = calls["keys"]["uri"].as_str().unwrap().strip_prefix("blobs/").unwrap().to_owned();
        assert_eq!(calls["keys"]["digest"]["sha256"].as_str().unwrap(), named.split('/').next().unwrap());
        let digest: Digest = named.parse().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let text = runtime
            .block_on(async { caller_of(&farm.url, DigestFunction::Sha256).await.text(&Some(digest.to_wire())).await });
        let keys: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(keys.is_sorted() && keys.iter().all(|key| key.len() == 64));
        (calls["results"].as_u64().unwrap(), calls["cached"].as_u64().unwrap(), keys)
    };
    farm.build(dir.path(), &[]).well();
    let (results, cached, first) = lists();
    assert_eq!((results, cached, first.len()), (7, 0, 7));
    write(dir.path(), "src/f2.c", "int f2(int x) { return x + 1; } // traced\n");
    let edited = farm.build(dir.path(), &[]).well();
    let (results, cached, second) = lists();
    assert_eq!((results, cached), (7, 6), "{:?}", calls(&edited, "build"));
    let common = first.iter().filter(|key| second.contains(key)).count();
    assert_eq!((common, second.len()), (6, 7), "one call has another result");
}
