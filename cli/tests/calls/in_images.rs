//! The caches of build tools in steps that run in an image's file system.

use std::path::Path;

use kiln_harness::bases::{busybox_layout, go_layout};
use kiln_harness::{Built, Farm, copy, project, write};

use super::project::config;

fn worker(built: &Built) -> String {
    built.of_type("step_finished").last().unwrap()["worker"].as_str().unwrap().to_owned()
}

/// Runs a project's only step twice, on two workers; in between, this changes the project.
fn twice(dir: &Path, change: impl FnOnce(&Path)) -> [Built; 2] {
    let farm = Farm::start(&["one", "two"]);
    let first = farm.build(dir, &["--executor", "sandbox"]).well();
    farm.stop_worker(&worker(&first));
    change(dir);
    let second = farm.build(dir, &["--executor", "sandbox"]).well();
    assert_ne!(worker(&first), worker(&second));
    [first, second]
}

#[test]
fn go_in_an_image_finds_what_was_compiled_on_another_worker() {
    let Some(base) = go_layout() else { return };
    let run = "export PATH=/usr/local/go/bin:$PATH CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false'\nmkdir out; go build -v -o out/p . 2>&1; out/p";
    let main = "package main\n\nfunc main() { println(\"hello\") }\n";
    let dir = project(&[
        ("kiln.toml", &config("go-in-image", run, "image = \"./base\"\nmemory = \"2GiB\"\ntimeout = \"10m\"")),
        ("go.mod", "module example.com/p\n\ngo 1.24\n"),
        ("main.go", main),
    ]);
    copy(base, &dir.path().join("base"));
    let [first, second] = twice(dir.path(), |dir| write(dir, "main.go", &main.replace("hello", "good day")));
    let (cold, warm) = (first.log(), second.log());
    assert!(cold.contains("\nruntime\n") && cold.contains("hello"), "{cold}");
    assert!(warm.contains("good day"), "{warm}");
    let compiled: Vec<&str> = warm.lines().filter(|line| !line.contains("good day")).collect();
    assert_eq!(compiled, ["example.com/p"], "expected nothing else to be compiled");
}

#[test]
fn tools_in_an_image_find_what_was_stored_on_another_worker_and_nothing_of_another_root() {
    let put = "printf 'PUT /cache/ccache/aa HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 4\\r\\nConnection: close\\r\\n\\r\\nmine' | nc 127.0.0.1 18981";
    let get = "wget -qO- $CCACHE_REMOTE_STORAGE/aa || echo nothing";
    let more = "image = \"./base\"";
    let dir = project(&[("kiln.toml", &config("tool-in-image", &format!("mkdir out; {put}"), more))]);
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    if busybox_layout(&base).is_none() {
        return;
    }
    let [first, second] = twice(dir.path(), |dir| {
        write(dir, "kiln.toml", &config("tool-in-image", &format!("mkdir out; {get}"), more));
    });
    assert!(first.log().contains("200 OK"), "{}", first.log());
    assert!(second.log().contains("mine"), "{}", second.log());
    // A step of the same project on the worker's own system has entries of its own.
    let farm = Farm::shared();
    let store = |more: &str| write(dir.path(), "kiln.toml", &config("tool-apart", &format!("mkdir out; {put}"), more));
    let look = |more: &str| {
        write(dir.path(), "kiln.toml", &config("tool-apart", &format!("mkdir out; {get}"), more));
        farm.build(dir.path(), &["--executor", "sandbox"]).well().log()
    };
    store(more);
    assert!(farm.build(dir.path(), &["--executor", "sandbox"]).well().log().contains("200 OK"));
    assert!(look("").contains("nothing"), "expected no entry of an image's step");
    assert!(look(more).contains("mine"));
}
