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
    for (run, name) in [("jest", "jest"), ("vitest run", "vitest")] {
        runner(at.path(), name, "");
        let chosen = sharded(run, None, &[]).unwrap();
        let said = ran(at.path(), &chosen, 2).replace(" <run>", "");
        assert_eq!(said, "ran <--passWithNoTests> <--shard=2/2>\n");
    }
    runner(at.path(), "node", "");
    let chosen = sharded("A=1 node --test --test-reporter=tap a.js", None, &[]).unwrap();
    assert_eq!(ran(at.path(), &chosen, 2), "ran <--test-shard=2/2> <--test> <--test-reporter=tap> <a.js>\n");
    assert_eq!(sharded("./run-tests", None, &[]), None);
}

#[test]
fn nextest_and_jest_are_told_what_each_shard_was_given() {
    let at = tempfile::tempdir().unwrap();
    runner(at.path(), "cargo", "");
    let shares = [(1, "shop a"), (2, "shop b"), (2, "shop::it whole"), (3, "shop gone")];
    let shares = shares.map(|(shard, unit)| (shard, unit.to_owned()));
    let chosen = sharded("cargo nextest run -- --b", None, &shares).unwrap();
    let second = "(binary_id(=shop)&(test(=b)))|(binary_id(=shop::it)&(test(=whole)))";
    assert_eq!(ran(at.path(), &chosen, 2), format!("ran <nextest> <run> <-E> <{second}> <--> <--b>\n"));
    // Whatever is not known is the first one's.
    assert_eq!(ran(at.path(), &chosen, 1), format!("ran <nextest> <run> <-E> <not({second})> <--> <--b>\n"));
    let chosen = sharded("cargo nextest run", None, &shares[..1]).unwrap();
    assert_eq!(ran(at.path(), &chosen, 1), "ran <nextest> <run> <-E> <not(none())>\n");
    assert_eq!(ran(at.path(), &chosen, 2), "ran <nextest> <run> <-E> <none()>\n");
    // A filter of its own would be one more to choose from, and a long list is no argument.
    let chosen = sharded("cargo nextest run -E 'test(a)'", None, &shares).unwrap();
    assert_eq!(ran(at.path(), &chosen, 2), "ran <nextest> <run> <-E> <test(a)> <--partition> <count:2/2>\n");
    let many: Vec<(u32, String)> =
        (0..1000).map(|number| (1 + number % 2, format!("shop {}{number}", "a".repeat(100)))).collect();
    let chosen = sharded("cargo nextest run", None, &many).unwrap();
    for shard in [1, 2] {
        assert_eq!(ran(at.path(), &chosen, shard), format!("ran <nextest> <run> <--partition> <count:{shard}/2>\n"));
    }

    runner(at.path(), "jest", "");
    let chosen = sharded("jest --ci", None, &[(2, "a.test.js".to_owned())]).unwrap();
    let root = at.path().canonicalize().unwrap();
    let sequencer = format!("<--testSequencer={}/.kiln/tests/sequencer.cjs>", root.display());
    assert_eq!(ran(at.path(), &chosen, 1), format!("ran <--ci> {sequencer} <--passWithNoTests> <--shard=1/2>\n"));
}

/// The names of the tests that Python's `unittest` ran.
fn by_unittest(at: &Path, chosen: &Chosen, shard: u32) -> Vec<String> {
    let run = Chosen { run: format!("({}) 2>&1", chosen.run), ..chosen.clone() };
    let printed = ran(at, &run, shard);
    let names = printed.lines().filter_map(|line| line.strip_suffix(" ... ok")?.split(' ').next().map(str::to_owned));
    names.collect()
}

#[test]
fn unittest_runs_what_a_shard_was_given_or_what_has_not_passed() {
    let at = tempfile::tempdir().unwrap();
    let tests = ["a", "b", "c", "d"].map(|name| format!("    def test_{name}(self): assert Cart.ready\n")).concat();
    let fixture = "    @classmethod\n    def setUpClass(cls): cls.ready = True\n";
    let text = format!("import unittest\n\n\nclass Cart(unittest.TestCase):\n{fixture}{tests}");
    std::fs::write(at.path().join("test_cart.py"), text).unwrap();
    let unit = |name: &str| format!("test_cart.Cart test_{name}");
    let run = "python3 -m unittest discover -v";
    let chosen = sharded(run, None, &[(2, unit("a")), (2, unit("b"))]).unwrap();
    assert_eq!(by_unittest(at.path(), &chosen, 1), ["test_c"]);
    assert_eq!(by_unittest(at.path(), &chosen, 2), ["test_a", "test_b", "test_d"]);
    let all = ["a", "b", "c", "d"].map(|name| (1, unit(name)));
    let none = sharded(run, None, &all).unwrap();
    assert_eq!(by_unittest(at.path(), &none, 2), [""; 0], "a shard without tests has not failed");
    let passed = ["a", "c"].map(|name| ("test_cart.Cart", name)).map(|(suite, name)| (suite, format!("test_{name}")));
    let others = passed.iter().map(|(suite, name)| (*suite, name.as_str())).collect();
    let retried = only(run, None, &Ran { others, ..failed(&[("test_cart.Cart", "test_b")]) }).unwrap();
    assert_eq!(by_unittest(at.path(), &retried, 1), [""; 0], "it has none of those");
    assert_eq!(by_unittest(at.path(), &retried, 2), ["test_b", "test_d"]);
    assert_eq!(only("python3 -m unittest -f", None, &failed(&[("test_cart.Cart", "test_b")])), None);
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
    for (name, mode) in [
        ("cargo", "only"),
        ("ctest", "only"),
        ("jest", "shard"),
        ("vitest", "only"),
        ("node", "shard"),
        ("unittest", "shard"),
        ("pytest", "shard"),
        ("go", "shard"),
    ] {
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
        "cargo", "test", "go", "pytest", "-m", "python3", "unittest", "jest", "vitest", "node", "--test", "npx", "ctest", ";", "&&", "'", "\"", "\\", "\n", "A=1", "<<", "(", "ä",
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
