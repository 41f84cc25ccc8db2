//! Every language's example, built with its real tool on a farm of processes: the artifact runs, and the second build is all hits.

#![allow(clippy::unwrap_used)]

#[path = "languages/native.rs"]
mod native;
mod real;

use std::path::Path;

use real::{Farm, cannot_run, commit, example, find, output, unpack, write};

/// Builds an example three times: the second time everything is a hit, the third everything runs again, and the artifact is the same.
fn twice(name: &str) -> Option<tempfile::TempDir> {
    let dir = example(name);
    let built = Farm::shared().build(dir.path(), &[]);
    if built.0.code != 0 {
        let registry = ["Could not transfer", "Unknown host", "NoPluginFoundForPrefix", "repo.maven.apache.org"];
        if let Some(tool) = built.message().split("has no `").nth(1).and_then(|rest| rest.split('`').next()) {
            assert_eq!(built.0.code, 3, "a missing tool is the farm's to mend");
            eprintln!("SKIPPED: {name}: the machine has no `{tool}`, and kiln said so");
            return None;
        }
        if registry.iter().any(|words| built.log().contains(words)) {
            assert_eq!(built.0.code, 1);
            eprintln!("SKIPPED: {name}: its registry cannot be reached from here");
            return None;
        }
    }
    let first = built.well();
    let second = Farm::shared().build(dir.path(), &[]).well();
    assert!(!first.caches().is_empty());
    assert!(second.caches().values().all(|cache| cache == "hit"), "{:?}", second.caches());
    let digest = |built: &real::Built| built.of_type("artifact")[0]["digest"].clone();
    assert_eq!(digest(&first), digest(&second));
    assert_eq!(second.finished()["bytes_uploaded"], 0);
    let again = Farm::shared().build(dir.path(), &["--no-cache"]).well();
    assert!(again.caches().values().all(|cache| cache == "miss"), "{:?}", again.caches());
    let ids = |built: &real::Built| {
        built.of_type("artifact").iter().map(|artifact| artifact["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), ids(&again), "{name}: two runs of the same steps left different files");
    Some(dir)
}

/// The example must build here: its tool and its registry are at hand.
fn built(name: &str) -> tempfile::TempDir {
    twice(name).unwrap_or_else(|| {
        cannot_run(&format!("the tool or the registry of {name}"));
        panic!("not built")
    })
}

fn out(dir: &tempfile::TempDir, path: &str) -> std::path::PathBuf {
    dir.path().join("kiln-out").join(path)
}

#[test]
fn rust() {
    let dir = built("rust");
    assert_eq!(output(out(&dir, "greet"), &["you"], dir.path()), "{\"hello\":\"you\",\"length\":\"3\"}\n");
}

#[test]
fn a_rust_workspace() {
    let dir = built("rust-workspace");
    assert!(output(out(&dir, "inventory"), &[], dir.path()).contains("built-by-script"));
}

#[test]
fn go() {
    let dir = built("go");
    assert!(!output(out(&dir, "hello"), &[], dir.path()).is_empty());
}

#[test]
fn c_with_make_cmake_and_meson() {
    let dir = built("c-make");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(output(unpacked.path().join("bin/reverse"), &["abc"], dir.path()).trim(), "cba");
    let dir = built("c-cmake");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let _ = output(unpacked.path().join("usr/local/bin/wordcount"), &["CMakeLists.txt"], dir.path());
    let dir = built("c-meson");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert!(!output(unpacked.path().join("usr/local/bin/fibonacci"), &["10"], dir.path()).is_empty());
}

#[test]
fn java() {
    let dir = built("java-plain");
    let jar = find(&dir.path().join("kiln-out"), ".jar").expect("the artifact is a jar");
    assert_eq!(output("java", &["-jar", jar.to_str().unwrap()], dir.path()), "hello world\n");
    twice("java-maven");
    let dir = built("java-gradle");
    let jar = find(&dir.path().join("kiln-out"), ".jar").expect("the artifact is a jar");
    assert!(!output("java", &["-jar", jar.to_str().unwrap()], dir.path()).is_empty());
}

#[test]
fn node_with_npm_pnpm_and_yarn() {
    for (name, main, expected) in [
        ("node-npm", "dist/main.js", "2 hours"),
        ("node-pnpm", "packages/app/main.js", "one-phrase"),
        ("node-yarn", "main.js", "1\\+1"),
    ] {
        let dir = built(name);
        let unpacked = unpack(&dir.path().join("kiln-out"));
        let said = output("node", &[unpacked.path().join(main).to_str().unwrap()], Path::new("/"));
        assert!(said.contains(expected), "{name}: expected `{expected}` in `{said}`");
    }
}

#[test]
fn python_with_pip_poetry_and_uv() {
    let dir = built("python-pip");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(output("python3", &["main.py", "a", "b"], unpacked.path()), "hello a and b\n");
    for (name, program) in [("python-poetry", "bin/tally"), ("python-uv", "bin/orbit")] {
        let dir = built(name);
        let unpacked = unpack(&dir.path().join("kiln-out"));
        let program = unpacked.path().join(program);
        let text = std::fs::read_to_string(&program).unwrap();
        assert!(text.starts_with("#!"), "{name}: expected a script, found {text}");
        let ran = std::process::Command::new(&program).arg("--help").output().unwrap();
        assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn ruby() {
    let dir = built("ruby");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert!(!output("ruby", &["main.rb", "x"], unpacked.path()).is_empty());
}

#[test]
fn a_source_edit_leaves_the_dependency_layers_and_a_lock_edit_does_not() {
    let dir = example("rust");
    commit(dir.path());
    let farm = Farm::shared();
    farm.build(dir.path(), &[]).well();
    let caches = |built: real::Built| {
        let caches = built.caches();
        ["fetch", "deps", "compile"].map(|step| caches[step].clone())
    };

    let main = std::fs::read_to_string(dir.path().join("src/main.rs")).unwrap();
    write(dir.path(), "src/main.rs", &format!("{main}\n// edited\n"));
    let edited = farm.build(dir.path(), &[]).well();
    assert!(!edited.log().contains("Compiling serde"), "only the project is compiled: {}", edited.log());
    assert_eq!(caches(edited), ["hit", "hit", "miss"]);

    let manifest = std::fs::read_to_string(dir.path().join("Cargo.toml")).unwrap();
    let lock = std::fs::read_to_string(dir.path().join("Cargo.lock")).unwrap();
    write(dir.path(), "Cargo.toml", &manifest.replace("1.4.2", "1.5.0"));
    write(dir.path(), "Cargo.lock", &lock.replace("1.4.2", "1.5.0"));
    let newer = farm.build(dir.path(), &[]).well();
    assert!(newer.of_type("artifact")[0]["id"].as_str().unwrap().contains("1.5.0"));
    assert_eq!(caches(newer), ["hit", "hit", "miss"], "the project's own version is no key of its dependencies");

    let itoa = lock.find("name = \"itoa\"").map(|at| lock[at..].lines().nth(1).unwrap().to_owned()).unwrap();
    write(dir.path(), "Cargo.toml", &manifest);
    write(
        dir.path(),
        "Cargo.lock",
        &lock.replace(&itoa, "version = \"1.0.14\"").replace(
            lock[lock.find("name = \"itoa\"").unwrap()..].lines().nth(3).unwrap(),
            "checksum = \"d75a2a4b1b190afb6f5425f10f6a8f959d2ea0b9c2b1d79553551850539e4674\"",
        ),
    );
    let locked = farm.build(dir.path(), &[]).well();
    assert_eq!(caches(locked), ["miss", "miss", "miss"]);
}
