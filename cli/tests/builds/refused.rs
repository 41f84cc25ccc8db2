//! Configurations that are refused with an explanation before anything runs.

use crate::work;
use kiln_harness::{Farm, project, write};

#[test]
fn a_bad_configuration_is_the_users_to_mend_and_nothing_runs() {
    for (config, expected) in [
        ("name = \"p\"\n[steps.a]\nrun = \"true\"\nnedes = [\"b\"]\n", vec!["line 4", "`nedes`", "`needs`"]),
        ("name = \"p\"\n[steps.a]\nrun = \"true\"\nneeds = [\"b\"]\n", vec!["`b`"]),
        (
            "name = \"p\"\n[steps.a]\nrun = \"true\"\nneeds = [\"b\"]\n[steps.b]\nrun = \"true\"\nneeds = [\"a\"]\n",
            vec!["cycle"],
        ),
        ("name = \"p\"\n[steps.a]\nrun = \"true\"\noutputs = [\"../x\"]\n", vec!["../x"]),
        ("name = \"p\"\n[steps.a]\nrun = \"true\"\noutputs = [\"/etc/x\"]\n", vec!["/etc/x"]),
        ("name = ", vec!["line 1"]),
    ] {
        let dir = project(&[("kiln.toml", config)]);
        let ran = Farm::shared().build(dir.path(), &[]).0;
        assert_eq!(ran.code, 2, "{config}: {} {}", ran.out, ran.err);
        for words in expected {
            assert!(ran.err.contains(words), "{config}: expected `{words}` in `{}`", ran.err);
        }
    }
    let empty = project(&[]);
    let ran = Farm::shared().build(empty.path(), &[]).0;
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[test]
fn a_tree_that_cannot_be_sent_is_refused_before_anything_is_sent() {
    let farm = Farm::shared();
    let dir = work("true", "");
    std::os::unix::fs::symlink("../../outside", dir.path().join("link")).unwrap();
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("`link` leaves the tree"), "{}", ran.err);

    let dir = work("true", "");
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!((ran.code, ran.err.contains("pipe")), (2, true), "{}", ran.err);

    let dir = work("true", "");
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"bad\xff");
    std::fs::write(dir.path().join(name), "").unwrap();
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!((ran.code, ran.err.contains("UTF-8")), (2, true), "{}", ran.err);
}

#[test]
fn a_stale_or_missing_lock_file_is_named() {
    let farm = Farm::shared();
    let dir = kiln_harness::example("rust");
    std::fs::remove_file(dir.path().join("Cargo.lock")).unwrap();
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!((ran.code, ran.err.contains("Cargo.lock")), (2, true), "{}", ran.err);
    let dir = kiln_harness::example("rust");
    let manifest = std::fs::read_to_string(dir.path().join("Cargo.toml")).unwrap();
    write(dir.path(), "Cargo.toml", &manifest.replace("[dependencies]", "[dependencies]\nanyhow = \"1\""));
    let ran = farm.build(dir.path(), &[]).0;
    assert_eq!(ran.code, 2, "{} {}", ran.out, ran.err);
    assert!(ran.err.contains("anyhow") && ran.err.contains("Cargo.lock"), "{}", ran.err);
}

#[test]
fn a_platform_that_no_worker_has_is_refused_at_once_with_what_there_is() {
    let dir = work(
        "true",
        "[targets.far]\nplatform = \"linux/arm64\"\n[targets.other]\nplatform = \"linux/amd64\"\nos = \"plan9:4\"\n",
    );
    let built = Farm::shared().build(dir.path(), &["--target", "far"]);
    assert_eq!((built.0.code, built.finished()["status"].as_str()), (3, Some("farm_failed")));
    for words in ["linux/arm64", "`one` is x86-64", "`two` is x86-64", "cross-compile"] {
        assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
    }
    let built = Farm::shared().build(dir.path(), &["--target", "other"]);
    assert!(built.message().contains("plan9:4") && built.message().contains("debian"), "{}", built.message());
}
