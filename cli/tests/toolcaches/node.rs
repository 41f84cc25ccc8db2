//! Turborepo and Nx, of npm.

use std::path::PathBuf;
use std::process::Command;

use kiln_harness::{Ran, project};
use tempfile::TempDir;

use crate::world::{World, done, works};

const ROOT: &str = r#"{"name": "shop", "private": true, "packageManager": "npm@9.2.0", "workspaces": ["packages/*"]}"#;
const PACKAGE: &str = r#"{"name": "app", "version": "1.0.0", "scripts": {"build": "mkdir -p dist && tr a-z A-Z < in.txt > dist/out.txt && echo built it"}}"#;
const LOCK: &str = r#"{"name": "shop", "lockfileVersion": 3, "requires": true, "packages": {
    "": {"name": "shop", "workspaces": ["packages/*"]},
    "node_modules/app": {"resolved": "packages/app", "link": true},
    "packages/app": {"version": "1.0.0"}}}"#;
const TURBO: &str = r#"{"tasks": {"build": {"outputs": ["dist/**"]}}}"#;
const NX: &str = r#"{"targetDefaults": {"build": {"cache": true, "outputs": ["{projectRoot}/dist"]}}, "analytics": false, "neverConnectToCloud": true}"#;

fn sources() -> TempDir {
    let dir = project(&[
        ("package.json", ROOT),
        ("package-lock.json", LOCK),
        ("turbo.json", TURBO),
        ("nx.json", NX),
        (".gitignore", "node_modules\ndist\n.nx\n.turbo\n"),
        ("packages/app/package.json", PACKAGE),
        ("packages/app/in.txt", "one farm\n"),
    ]);
    kiln_harness::commit(dir.path());
    dir
}

#[track_caller]
fn check(dir: &TempDir, ran: Ran) -> Ran {
    let ran = done(ran);
    let built = std::fs::read_to_string(dir.path().join("packages/app/dist/out.txt"));
    assert_eq!(built.ok().as_deref(), Some("ONE FARM\n"), "{}\n{}", ran.out, ran.err);
    ran
}

fn turbo(world: &World, caller: &str) -> String {
    let dir = sources();
    let script = "export TURBO_TELEMETRY_DISABLED=1 DO_NOT_TRACK=1 HOME=\"$PWD/home\"\n\
        turbo run build --cache=remote:rw --no-daemon --ui=stream --no-color --output-logs=full";
    let ran = check(&dir, world.run(caller, "turbo", dir.path(), script));
    ran.out + &ran.err
}

#[test]
fn turborepo_replays_from_the_farm_and_goes_on_without_it() {
    if !works("turbo", &["--version"]) {
        return;
    }
    let world = World::start();
    let cold = turbo(&world, "writer");
    assert!(cold.contains("cache miss"), "{cold}");
    let warm = turbo(&world, "reader");
    assert!(warm.contains("cache hit") && warm.contains("built it"), "{warm}");
    assert!(turbo(&world, "bank").contains("cache miss"), "expected nothing of another tenant");
    let wrong = turbo(&world, "nobody");
    assert!(wrong.contains("cache miss") || wrong.contains("cache bypass"), "{wrong}");
}

/// Where npm has installed a package for everyone.
fn installed(package: &str) -> Option<PathBuf> {
    let root = Command::new("npm").args(["root", "--global"]).output().ok()?;
    let at = PathBuf::from(String::from_utf8(root.stdout).ok()?.trim()).join(package);
    at.exists().then_some(at)
}

fn nx(world: &World, caller: &str) -> String {
    let dir = sources();
    std::fs::create_dir(dir.path().join("node_modules")).unwrap();
    let at = installed("nx").unwrap();
    std::os::unix::fs::symlink(at, dir.path().join("node_modules/nx")).unwrap();
    let script = "export NX_DAEMON=false NX_NO_CLOUD=true CI=true NX_VERBOSE_LOGGING=false HOME=\"$PWD/home\" NX_TUI=false\n\
        node node_modules/nx/dist/bin/nx.js run app:build --outputStyle=stream";
    let ran = check(&dir, world.run(caller, "nx", dir.path(), script));
    ran.out + &ran.err
}

#[test]
fn nx_restores_from_the_farm_and_goes_on_when_it_may_not_write() {
    if installed("nx").is_none() {
        return kiln_harness::cannot_run("npm's `nx` is not installed");
    }
    let world = World::start();
    let reading = nx(&world, "reader");
    assert!(!reading.contains("remote cache"), "expected nothing to be stored, and no complaint: {reading}");
    let cold = nx(&world, "writer");
    assert!(!cold.contains("remote cache"), "{cold}");
    let warm = nx(&world, "reader");
    assert!(warm.contains("remote cache"), "expected a hit: {warm}");
}
