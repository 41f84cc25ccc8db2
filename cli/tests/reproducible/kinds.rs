//! One step that is deliberately not reproducible for each cause, and what Kiln calls it.

use kiln_harness::bases::busybox_layout;
use kiln_harness::{Built, Farm, find, project};
use serde_json::Value;

use crate::{again, compared, farm, kinds};

/// Each file, what makes it, and what it differs in.
const CAUSES: &[(&str, &str, &str)] = &[
    ("seconds.txt", "date +%s > out/seconds.txt", "time"),
    ("date.txt", "date > out/date.txt", "time"),
    (
        "entry.zip",
        "touch x; python3 -c \"import zipfile; z = zipfile.ZipFile('out/entry.zip', 'w'); z.write('x'); z.close()\"",
        "time",
    ),
    ("entry.tar", "touch y; tar -cf out/entry.tar y", "time"),
    ("header.gz", "echo content > z; gzip z; mv z.gz out/header.gz", "time"),
    ("nested.tar.gz", "mkdir n; touch n/y; tar -cf n.tar n; gzip -n n.tar; mv n.tar.gz out/nested.tar.gz", "time"),
    ("old.a", "touch o; ar rcU out/old.a o", "time"),
    (
        "module.pyc",
        "echo 'x = 1' > g.py; python3 -c \"import py_compile; py_compile.compile('g.py', 'out/module.pyc', invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)\"",
        "time",
    ),
    (
        "macro",
        "echo 'const char *t = __DATE__ \" \" __TIME__; int main(void) { return *t == 0; }' > m.c; env -u SOURCE_DATE_EPOCH cc m.c -Wl,--build-id=none -o out/macro",
        "time",
    ),
    ("set.txt", "python3 -c \"print(set('abcdefghijklmnop'))\" > out/set.txt", "order"),
    (
        "order.tar",
        "python3 -c \"import tarfile, io; t = tarfile.open('out/order.tar', 'w'); [t.addfile(tarfile.TarInfo(n)) for n in set('abcdefghijklmnop')]; t.close()\"",
        "order",
    ),
    (
        "keys.json",
        "python3 -c \"import json; print(json.dumps({k: 1 for k in set('abcdefghijklmnop')}))\" > out/keys.json",
        "order",
    ),
    ("temporary.txt", "mktemp -d > out/temporary.txt", "path"),
    ("debug.o", "d=$(mktemp -d); echo 'int f(void) { return 1; }' > $d/f.c; cc -g -c $d/f.c -o out/debug.o", "path"),
    ("cpus.txt", "nproc > out/cpus.txt", "cpus"),
    ("host.txt", "hostname > out/host.txt", "host-name"),
    ("object.txt", "python3 -c \"print(object())\" > out/object.txt", "address"),
    ("hash.txt", "python3 -c \"print(hash('a'))\" > out/hash.txt", "address"),
    ("uuid.txt", "cat /proc/sys/kernel/random/uuid > out/uuid.txt", "build-id"),
    ("linked", "echo 'int main(void) { return 0; }' > l.c; cc l.c -Wl,--build-id=uuid -o out/linked", "build-id"),
    ("mode.txt", "touch out/mode.txt; chmod 6$(($(nproc) % 2 * 4))0 out/mode.txt", "permission"),
    ("only.txt", "test $(nproc) = 1 || touch out/only.txt", "missing"),
    ("random.bin", "head -c 100 /dev/urandom > out/random.bin", "content"),
];

fn config(causes: &[(&str, &str, &str)], more: &str) -> String {
    let mut config = "name = \"causes\"\nversion = \"1\"\n".to_owned();
    for (number, (_, run, _)) in causes.iter().enumerate() {
        let own = format!("out/s{number}");
        let run = run.replace("out/", &format!("{own}/"));
        config.push_str(&format!(
            "[steps.s{number}]\nrun = '''mkdir -p {own}\n{run}'''\noutputs = [\"{own}\"]\n{more}\n"
        ));
    }
    let from: Vec<String> = (0..causes.len()).map(|number| format!("\"s{number}\"")).collect();
    config.push_str(&format!(
        "[artifacts.causes]\nkind = \"archive\"\nfrom = [{}]\nfiles = [\"out\"]\n",
        from.join(", ")
    ));
    config
}

#[test]
fn each_cause_is_named_with_the_file_and_the_build_fails() {
    let dir = project(&[("kiln.toml", &config(CAUSES, ""))]);
    let built = farm().build(dir.path(), &["--verify-reproducible"]);
    assert_eq!(built.0.code, 1, "{}\n{}", built.0.out, built.0.err);
    let again = again(&built);
    for (number, (file, _, kind)) in CAUSES.iter().enumerate() {
        let step = &again[&format!("s{number}")];
        assert_eq!(step["outcome"], "different", "{file}: {step}");
        let found = kinds(step);
        let path = format!("out/s{number}/{file}");
        assert!(
            found.get(&path).is_some_and(|kinds| kinds.contains(*kind)),
            "{file}: expected `{kind}`, found {step:#}"
        );
    }
    let message = built.message();
    assert!(
        message.contains("is not reproducible") && message.contains("`out/s0/seconds.txt`: line 1: time stamp"),
        "{message}"
    );
    let result = compared(&built);
    assert_eq!((&result["outcome"], &result["compared"]), (&"different".into(), &CAUSES.len().into()));
    // The artifact is there all the same, with what was found.
    let provenance = find(&dir.path().join("kiln-out"), ".provenance.json").unwrap();
    let provenance: Value = serde_json::from_slice(&std::fs::read(provenance).unwrap()).unwrap();
    let first = &provenance["predicate"]["runDetails"]["byproducts"][0]["annotations"]["reproduced"];
    assert_eq!((&first["outcome"], &first["differences"][0]["kind"]), (&"different".into(), &"time".into()));
    assert!(first["conditions"]["second"]["hostName"].as_str().unwrap().starts_with("kiln-"), "{first}");
    let id = built.of_type("artifact")[0]["id"].clone();
    let listed: Value = serde_json::from_str(&farm().kiln(&["artifacts", "causes", "--json"]).out).unwrap();
    let listed = listed.as_array().unwrap().iter().find(|artifact| artifact["id"] == id).unwrap();
    assert_eq!(listed["reproducibility"]["outcome"], "different");
    // A second run is the result of no step.
    let third = farm().build(dir.path(), &[]).well();
    assert!(third.caches().values().all(|cache| cache == "hit"), "{:?}", third.caches());
    assert_eq!(third.of_type("artifact")[0]["id"], id);
}

const CHAIN: &str = r#"
name = "proven"
version = "1"
[steps.one]
inputs = ["in"]
run = "cat in > one; echo $KILN_ROUND > /dev/null"
outputs = ["one"]
[steps.two]
needs = ["one"]
inputs = []
run = "mkdir -p d; sort one > d/two; chmod +x d/two; ln -s two d/link"
outputs = ["d"]
[steps.test]
needs = ["two"]
run = "date +%s%N > report"
outputs = ["report"]
[artifacts.proven]
from = "two"
files = ["d"]
kind = "archive"
"#;

#[test]
fn a_reproducible_artifact_is_proven_on_another_worker_and_a_known_one_too() {
    let farm = farm();
    let dir = project(&[("kiln.toml", CHAIN), ("in", "b\na\n")]);
    let built = farm.build(dir.path(), &["--verify-reproducible"]).well();
    let again = again(&built);
    assert_eq!(again.keys().collect::<Vec<_>>(), ["one", "two"], "the test is in no artifact");
    for step in again.values() {
        assert_eq!(step["outcome"], "same");
        let (first, second) = (&step["first"], &step["second"]);
        assert_ne!(first["worker"], second["worker"], "there is another worker");
        assert_ne!(first["host_name"], second["host_name"]);
        assert!(first["cpus"] != second["cpus"] || first["cpus"] == 1, "{step}");
        let varied = step["varied"].as_array().unwrap();
        assert!(["time", "worker", "host-name"].iter().all(|name| varied.contains(&(*name).into())), "{step}");
    }
    assert_eq!(compared(&built)["outcome"], "same");
    // What is known already is verified as well, and its own record stays as it is.
    let later = farm.build(dir.path(), &["--verify-reproducible"]).well();
    assert!(later.caches().values().all(|cache| cache == "hit"), "{:?}", later.caches());
    assert_eq!((&compared(&later)["outcome"], &compared(&later)["compared"]), (&"same".into(), &2.into()));
    assert_eq!(built.of_type("artifact")[0]["id"], later.of_type("artifact")[0]["id"]);
    let table = farm.kiln(&["artifacts", "proven"]).out;
    assert!(table.contains("reproduced") && table.contains("yes"), "{table}");
}

/// Whether an artifact is what a policy demands that asks for reproducible ones, and what is said.
fn is_accepted(farm: &Farm, what: &str) -> (bool, String) {
    let policy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(policy.path(), "reproducible = true\nallow-dirty = true\n").unwrap();
    let ran = farm.kiln(&["verify", what, "--farm", &farm.url, "--policy", policy.path().to_str().unwrap()]);
    assert!(matches!(ran.code, 0 | 1), "{}", ran.err);
    (ran.code == 0, ran.out + &ran.err)
}

#[test]
fn what_a_later_verification_finds_is_signed_and_counts_for_policies() {
    let farm = farm();
    let dir = project(&[("kiln.toml", &CHAIN.replace("proven", "later")), ("in", "later\n")]);
    let built = farm.build(dir.path(), &[]).well();
    let id = built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    let (accepted, words) = is_accepted(farm, &id);
    assert!(!accepted && words.contains("was not made a second time"), "{words}");
    let later = farm.build(dir.path(), &["--verify-reproducible"]).well();
    assert_eq!(later.of_type("artifact")[0]["id"], id.as_str());
    let (accepted, words) = is_accepted(farm, &id);
    assert!(accepted && words.contains("made again step by step"), "{words}");
    // The statement is beside the files, too.
    let file = find(&dir.path().join("kiln-out"), ".tar.zst").unwrap();
    assert!(find(&dir.path().join("kiln-out"), ".reproduced.sigstore.json").is_some());
    assert!(is_accepted(farm, file.to_str().unwrap()).0);
    // One that differs, on an artifact that nothing was known of.
    let causes = [("uuid.txt", "cat /proc/sys/kernel/random/uuid > out/uuid.txt", "build-id")];
    let dir = project(&[("kiln.toml", &config(&causes, ""))]);
    let built = farm.build(dir.path(), &[]).well();
    let id = built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(farm.build(dir.path(), &["--verify-reproducible"]).0.code, 1);
    let (accepted, words) = is_accepted(farm, &id);
    assert!(!accepted && words.contains("it came out different") && words.contains("step `s0`"), "{words}");
}

#[test]
fn what_a_step_fetches_may_differ_unless_everything_must_be_the_same() {
    let causes = [("seconds.txt", "date +%s > out/seconds.txt", "time")];
    let dir = project(&[("kiln.toml", &config(&causes, "network = true"))]);
    let built = farm().build(dir.path(), &["--verify-reproducible"]).well();
    let result = compared(&built);
    assert_eq!((&result["outcome"], &result["different"]), (&"same".into(), &1.into()), "it is told of");
    let built = farm().build(dir.path(), &["--verify-reproducible=all"]);
    assert_eq!((built.0.code, &compared(&built)["outcome"]), (1, &"different".into()));
}

#[test]
fn a_step_that_fails_under_other_conditions_is_not_reproducible_and_its_error_is_named() {
    let causes = [("x", "test $(hostname) = kiln || { echo 'error: not here' >&2; exit 7; }; touch out/x", "content")];
    let dir = project(&[("kiln.toml", &config(&causes, ""))]);
    let built = farm().build(dir.path(), &["--verify-reproducible"]);
    assert_eq!(built.0.code, 1);
    assert!(built.message().contains("the second run failed with exit code 7: error: not here"), "{}", built.message());
}

#[test]
fn with_one_worker_the_second_run_is_on_the_same() {
    let alone = Farm::start(&["alone"]);
    let dir = project(&[("kiln.toml", CHAIN), ("in", "a\n")]);
    let built = alone.build(dir.path(), &["--verify-reproducible"]).well();
    let step = again(&built)["one"].clone();
    assert_eq!((&step["outcome"], &step["second"]["worker"]), (&"same".into(), &"alone".into()));
}

#[test]
fn without_a_sandbox_what_can_be_varied_is_and_the_result_says_what_that_was() {
    let farm = Farm::start(&[]);
    farm.start_worker_with("bare", &["--sandbox", "off"]);
    farm.wait_for_worker("bare");
    let dir = project(&[("kiln.toml", CHAIN), ("in", "bare\n")]);
    let built = farm.build(dir.path(), &["--verify-reproducible"]).well();
    let mut expected = vec!["time", "cpus", "directory"];
    if again(&built)["one"]["first"]["cpus"] == 1 {
        expected.retain(|name| *name != "cpus");
    }
    for found in again(&built).values().chain([&compared(&built)]) {
        assert_eq!((&found["outcome"], &found["varied"]), (&"same".into(), &expected.clone().into()), "{found}");
    }
    let provenance = find(&dir.path().join("kiln-out"), ".provenance.json").unwrap();
    let provenance: Value = serde_json::from_slice(&std::fs::read(provenance).unwrap()).unwrap();
    let steps = provenance["predicate"]["runDetails"]["byproducts"].as_array().unwrap();
    let one = steps.iter().find(|step| step["name"] == "one").unwrap();
    assert_eq!(one["annotations"]["reproduced"]["varied"], Value::from(expected), "{one}");
    let causes = [
        ("cpus.txt", "nproc > out/cpus.txt", "cpus"),
        ("path.txt", "echo \"built in $PWD\" > out/path.txt", "path"),
        ("home.txt", "echo \"at home in $HOME\" > out/home.txt", "path"),
    ];
    let dir = project(&[("kiln.toml", &config(&causes, ""))]);
    let built = farm.build(dir.path(), &["--verify-reproducible"]);
    assert_eq!(built.0.code, 1, "{}\n{}", built.0.out, built.0.err);
    for (number, (file, _, kind)) in causes.iter().enumerate() {
        let step = &again(&built)[&format!("s{number}")];
        let found = kinds(step);
        assert!(found[&format!("out/s{number}/{file}")].contains(*kind), "{file}: expected `{kind}`, found {step:#}");
    }
}

#[test]
fn commands_of_a_dockerfile_are_verified_too() {
    let config = "name = \"image\"\nversion = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontexts = { base = \"oci-layout://base\" }\n";
    let dockerfile =
        "FROM base\nRUN date +%s > /stamp\nRUN --network=none echo same > /same\nRUN --network=none hostname > /host\n";
    let dir = project(&[("kiln.toml", config), ("Dockerfile", dockerfile), (".dockerignore", "base\n")]);
    std::fs::create_dir(dir.path().join("base")).unwrap();
    if busybox_layout(&dir.path().join("base")).is_none() {
        return;
    }
    let built = farm().build(dir.path(), &["--verify-reproducible"]);
    assert_eq!(built.0.code, 1, "{}\n{}", built.0.out, built.0.err);
    let of = |built: &Built, outcome: &str| again(built).values().filter(|step| step["outcome"] == outcome).count();
    assert_eq!((of(&built, "different"), of(&built, "same")), (2, 1), "{:#?}", again(&built));
    let message = built.message();
    assert!(message.contains("`root/host`: line 1: host name `kiln` against `kiln-"), "{message}");
    // The image as a whole is known now, and its commands are verified all the same.
    let later = farm().build(dir.path(), &["--verify-reproducible"]);
    assert!(later.caches().values().all(|cache| cache == "hit"), "{:?}", later.caches());
    assert_eq!((of(&later, "different"), of(&later, "same")), (2, 1), "{:#?}", again(&later));
}
