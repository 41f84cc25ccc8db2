//! Lock files that are missing or stale are refused before anything runs.

use insta::assert_snapshot;

use super::refused;

#[test]
fn missing() {
    let cargo = "[package]\nname = \"a\"\n[dependencies]\nitoa = \"1\"\n";
    assert_snapshot!(refused(&[("Cargo.toml", cargo), ("src/main.rs", "")]), @"`Cargo.toml` names dependencies but there is no `Cargo.lock`, so two builds of one commit could differ: run `cargo generate-lockfile` and commit `Cargo.lock`");
    assert_snapshot!(refused(&[("package.json", r#"{"dependencies":{"ms":"2"}}"#)]), @"`package.json` names dependencies but there is no `package-lock.json`, so two builds of one commit could differ: run `npm install --package-lock-only` and commit `package-lock.json`");
    assert_snapshot!(refused(&[("package.json", r#"{"packageManager":"pnpm@9","dependencies":{"ms":"2"}}"#)]), @"`package.json` names dependencies but there is no `pnpm-lock.yaml`, so two builds of one commit could differ: run `pnpm install --lockfile-only` and commit `pnpm-lock.yaml`");
    assert_snapshot!(refused(&[("go.mod", "module a\nrequire b.c/d v1.0.0\n")]), @"`go.mod` names dependencies but there is no `go.sum`, so two builds of one commit could differ: run `go mod tidy` and commit `go.sum`");
    assert_snapshot!(refused(&[("Gemfile", "gem 'rack'")]), @"`Gemfile` names dependencies but there is no `Gemfile.lock`, so two builds of one commit could differ: run `bundle lock` and commit `Gemfile.lock`");
    assert_snapshot!(refused(&[("CMakeLists.txt", ""), ("conanfile.txt", "")]), @"`conanfile.txt` names dependencies but there is no `conan.lock`, so two builds of one commit could differ: run `conan lock create .` and commit `conan.lock`");
}

#[test]
fn stale() {
    let cargo = "[package]\nname = \"a\"\nversion = \"1.0.0\"\n[dependencies]\nitoa = \"1\"\n";
    let lock = |version: &str| format!("version = 4\n[[package]]\nname = \"a\"\nversion = \"{version}\"\n");
    assert_snapshot!(refused(&[("Cargo.toml", cargo), ("Cargo.lock", &lock("1.0.0")), ("src/main.rs", "")]), @"`Cargo.lock` is stale: `Cargo.toml` depends on `itoa`, which the lock lacks: run `cargo update --workspace` and commit `Cargo.lock`");
    assert_snapshot!(refused(&[("Cargo.toml", cargo), ("Cargo.lock", &lock("0.9.0")), ("src/main.rs", "")]), @"`Cargo.lock` is stale: `Cargo.toml` is at version 1.0.0, the lock has `a` at 0.9.0: run `cargo update --workspace` and commit `Cargo.lock`");
    assert_snapshot!(refused(&[("package.json", r#"{"dependencies":{"ms":"^2"}}"#), ("package-lock.json", "{}")]), @"`package-lock.json` is stale: `package.json` depends on `ms` ^2, which it lacks: run `npm install --package-lock-only` and commit `package-lock.json`");
    assert_snapshot!(refused(&[("package.json", r#"{"dependencies":{"ms":"^2"}}"#), ("yarn.lock", "ms@^1:\n")]), @"`yarn.lock` is stale: `package.json` depends on `ms` ^2, which it lacks: run `yarn install` and commit `yarn.lock`");
    assert_snapshot!(refused(&[("go.mod", "module a\nrequire b.c/d v1.0.0\n"), ("go.sum", "b.c/d v0.9.0 h1:x\n")]), @"`go.sum` is stale: `go.mod` requires `b.c/d v1.0.0`, which it lacks: run `go mod tidy` and commit `go.sum`");
    assert_snapshot!(refused(&[("Gemfile", "gem 'rack'"), ("Gemfile.lock", "GEM\n\nDEPENDENCIES\n  rake\n")]), @"`Gemfile.lock` is stale: `Gemfile` names the gem `rack`, which it lacks: run `bundle lock` and commit `Gemfile.lock`");
    assert_snapshot!(refused(&[("pyproject.toml", "[project]\ndependencies = [\"Click>=8\"]\n"), ("uv.lock", "")]), @"`uv.lock` is stale: `pyproject.toml` depends on `Click`, which it lacks: run `uv lock` and commit `uv.lock`");
}

#[test]
fn a_manifest_that_cannot_be_read_is_named() {
    assert_snapshot!(refused(&[("Cargo.toml", "[package")]), @"`Cargo.toml` cannot be read: unclosed table, expected `]`");
    assert_snapshot!(refused(&[("package.json", "{")]), @"`package.json` cannot be read: EOF while parsing an object at line 1 column 1");
}

#[test]
fn a_package_that_builds_nothing_is_refused() {
    assert_snapshot!(refused(&[("Cargo.toml", "[package]\nname = \"a\"\n")]), @"`Cargo.toml` produces no artifact: expected a binary (`src/main.rs`) or a library (`src/lib.rs`) in one of its packages");
}
