//! The script with runners that say what they were asked for.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// A runner that prints its arguments, one a line, and lists this when it is asked to.
fn runner(at: &Path, name: &str, listing: &str) {
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in *' --list '*|*' -N '*|' list '*) printf '{listing}';; *) printf 'ran'; for word in \"$@\"; do printf ' <%s>' \"$word\"; done; echo;; esac\n"
    );
    let path = at.join("bin").join(name);
    std::fs::create_dir_all(at.join("bin")).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What a command prints in a tree with its files, as this shard.
fn ran(at: &Path, chosen: &Chosen, shard: u32) -> String {
    for (path, text) in &chosen.files {
        let path = at.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", at.join("bin").display());
    let mut command = Command::new("/bin/sh");
    command.args(["-e", "-c", &chosen.run]).current_dir(at).env("PATH", path);
    command.env("KILN_SHARD", shard.to_string()).env("KILN_SHARDS", "2");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn failed<'a>(tests: &[(&'a str, &'a str)]) -> Ran<'a> {
    Ran { failed: tests.to_vec(), ..Ran::default() }
}

#[test]
fn failed_tests_are_named_to_their_runner() {
    let at = tempfile::tempdir().unwrap();
    runner(at.path(), "cargo", "");
    let run = "cd .\nA=1 cargo test --no-fail-fast; echo done";
    let chosen = only(run, None, &failed(&[("shop", "a::b"), ("it", "it's")])).unwrap();
    assert_eq!(ran(at.path(), &chosen, 1), "ran <test> <--no-fail-fast> <--> <--exact> <a::b> <it's>\ndone\n");
    let chosen = only("cargo test --no-fail-fast -- --nocapture", None, &failed(&[("shop", "a")])).unwrap();
    assert_eq!(ran(at.path(), &chosen, 1), "ran <test> <--no-fail-fast> <--> <--nocapture> <--exact> <a>\n");

    let chosen = only("cargo test --no-fail-fast", None, &failed(&[("shop", "$(id)`id`;\"'*")])).unwrap();
    assert_eq!(ran(at.path(), &chosen, 1), "ran <test> <--no-fail-fast> <--> <--exact> <$(id)`id`;\"'*>\n");

    runner(at.path(), "go", "shop\\nshop/sub\\nother\\n");
    let chosen =
        only("go test -race -tags x ./... -args -v", None, &failed(&[("shop", "TestA/b"), ("gone", "TestB")])).unwrap();
    let expected = "ran <test> <-race> <-tags> <x> <-run> <^(TestA|TestB)$> <shop> <-args> <-v>\n";
    assert_eq!(ran(at.path(), &chosen, 1), expected);

    runner(at.path(), "ctest", "Test project x\\n  Test #1: a\\n  Test #12: b c\\n\\nTotal Tests: 2\\n");
    let chosen = only("ctest -j4", None, &failed(&[("", "b c")])).unwrap();
    assert_eq!(ran(at.path(), &chosen, 1), "ran <-j4> <-I> <0,0,0,12>\n");

    runner(at.path(), "jest", "");
    let chosen = only("jest --ci", None, &failed(&[("a.test.js", "adds $1 (once)")])).unwrap();
    let expected = "ran <--ci> <--passWithNoTests> <--testNamePattern=^(adds \\$1 \\(once\\))$>\n";
    assert_eq!(ran(at.path(), &chosen, 1), expected);
}

#[test]
fn what_may_not_have_run_is_never_left_out() {
    let tests = failed(&[("shop", "a")]);
    for run in [
        "cargo test",
        "cargo test --no-fail-fast\ncargo test --no-fail-fast -p other",
        "go test -failfast ./...",
        "jest --bail=1",
        "ctest --stop-on-failure",
        "make test",
    ] {
        assert_eq!(only(run, None, &tests), None, "{run}");
    }
    // What cannot be named.
    for test in ["src/lib.rs - (line 1)", "(the program)"] {
        assert_eq!(only("cargo test --no-fail-fast", None, &failed(&[("", test)])), None);
    }
    // Nor those of a list that is too long for a command, or for one argument.
    let long = "a".repeat(100);
    let names: Vec<String> = (0..3_000).map(|number| format!("{long}{number}")).collect();
    let many = failed(&names.iter().map(|name| ("shop", name.as_str())).collect::<Vec<_>>());
    for run in ["cargo test --no-fail-fast", "go test", "jest", "ctest"] {
        assert_eq!(only(run, None, &many), None, "{run}");
    }
    // pytest is told what has passed.
    let ran = Ran { others: vec![("tests.test_a", "test_b")], ..failed(&[("tests.test_a", "test_c")]) };
    let chosen = only("pytest -x", None, &ran).unwrap();
    assert_eq!(chosen.files[".kiln/tests/passed"], "tests.test_a test_b\n");
}

#[test]
fn every_test_is_in_one_shard_the_known_ones_in_theirs() {
    let at = tempfile::tempdir().unwrap();
    runner(
        at.path(),
        "cargo",
        "a: test\\nb: test\\nnew: test\\nc: test\\na: test\\nnewer: test\\nb.rs - (line 1): test\\nx: benchmark\\n",
    );
    let shares = [(2, "a"), (2, "b"), (1, "c"), (7, "newer")].map(|(shard, unit)| (shard, unit.to_owned()));
    let chosen = sharded("cargo test -- --nocapture", None, &shares).unwrap();
    let first = "ran <test> <--> <--nocapture> <--exact> <new> <c>\nran <test> <--doc> <--> <--nocapture>\n";
    assert_eq!(ran(at.path(), &chosen, 1), first);
    assert_eq!(ran(at.path(), &chosen, 2), "ran <test> <--> <--nocapture> <--exact> <a> <b> <newer>\n");

    runner(at.path(), "go", "shop\\nsub\\n");
    let chosen = sharded("go test -v ./...", None, &[(2, "shop".to_owned()), (2, "sub".to_owned())]).unwrap();
    assert_eq!(ran(at.path(), &chosen, 1), "");
    assert_eq!(ran(at.path(), &chosen, 2), "ran <test> <-v> <shop> <sub>\n");

    runner(at.path(), "ctest", "  Test #1: a\\n  Test #2: b c\\n");
    let chosen = sharded("ctest", None, &[(2, "a".to_owned())]).unwrap();
    assert_eq!(ran(at.path(), &chosen, 1), "ran <-I> <0,0,0,2>\n");
    assert_eq!(ran(at.path(), &chosen, 2), "ran <-I> <0,0,0,1>\n");

    runner(at.path(), "cargo", "");
    let chosen = sharded("cargo nextest run --a -- --b", None, &[]).unwrap();
    assert_eq!(ran(at.path(), &chosen, 2), "ran <nextest> <run> <--a> <--partition> <count:2/2> <--> <--b>\n");
    runner(at.path(), "jest", "");
    let chosen = sharded("jest", None, &[]).unwrap();
    assert_eq!(ran(at.path(), &chosen, 2), "ran <--passWithNoTests> <--shard=2/2>\n");
    assert_eq!(sharded("./run-tests", None, &[]), None);
}

#[test]
fn a_step_in_a_directory_finds_its_script() {
    let at = tempfile::tempdir().unwrap();
    runner(at.path(), "cargo", "");
    std::fs::create_dir_all(at.path().join("a/b")).unwrap();
    let chosen = only("cargo test --no-fail-fast", Some("./a/b"), &failed(&[("", "t")])).unwrap();
    let chosen = Chosen { run: format!("cd a/b\n{}", chosen.run), ..chosen };
    assert_eq!(ran(at.path(), &chosen, 1), "ran <test> <--no-fail-fast> <--> <--exact> <t>\n");
}

#[test]
fn a_runner_that_fails_fails() {
    let at = tempfile::tempdir().unwrap();
    for (name, mode) in [("cargo", "only"), ("ctest", "only"), ("jest", "shard"), ("pytest", "shard"), ("go", "shard")]
    {
        let path = at.path().join("bin").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "#!/bin/sh\necho '  Test #1: t'\nexit 3\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(at.path().join("run.sh"), include_str!("shell/run.sh")).unwrap();
        std::fs::write(at.path().join("list"), "t\n").unwrap();
        std::fs::write(at.path().join("pattern"), "t").unwrap();
        let mut command = Command::new("/bin/sh");
        command.arg(at.path().join("run.sh")).args([mode, name, name, "test"]).env("KILN_TESTS", at.path());
        command.env("KILN_SHARD", "1").env("KILN_SHARDS", "1");
        command.env("PATH", format!("{}:/usr/bin:/bin", at.path().join("bin").display()));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{name}: {output:?}");
    }
}

proptest! {
    #[test]
    fn no_command_makes_it_fail(run in "[ a-z;&|'\"\\\\\n#(<`\\-=]{0,40}", words in prop::collection::vec(prop::sample::select(vec![
        "cargo", "test", "go", "pytest", "-m", "python3", "jest", "npx", "ctest", ";", "&&", "'", "\"", "\\", "\n", "A=1", "<<", "(", "ä",
    ]), 0..20)) {
        for run in [run, words.join(" ")] {
            let _ = only(&run, Some("a"), &failed(&[("s", "n")]));
            if let Some(chosen) = sharded(&run, None, &[(1, "a".into())]) {
                // Nothing of it is lost.
                let (_, rest) = chosen.run.split_once('\n').unwrap();
                let tool = Tool::of(&run).unwrap().word();
                prop_assert_eq!(rest.replace(&format!("sh \"$KILN_TESTS/run.sh\" shard {tool} "), ""), run);
            }
        }
    }
}
