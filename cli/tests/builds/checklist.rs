//! `kiln check`, and the notes of a plan.

use kiln_harness::{Farm, Ran, commit, write};

#[test]
fn the_checklist_says_pass_or_fail_with_a_fix_and_init_satisfies_it() {
    let farm = Farm::shared();
    let dir = kiln_harness::example("rust");
    commit(dir.path());
    let mut command = farm.command(&["check"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    for words in ["lock", "store", "environment"] {
        assert!(ran.out.to_lowercase().contains(words), "expected `{words}` in {}", ran.out);
    }
    assert_eq!(ran.code, 1, "expected a failure: nothing builds it on every push yet: {}", ran.out);
    kiln_harness::git(dir.path(), &["remote", "add", "origin", "https://git.example/greet.git"]);
    write(dir.path(), ".github/workflows/build.yml", "on: push\njobs:\n  b:\n    steps:\n      - run: kiln build\n");
    let mut command = farm.command(&["init"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{}", ran.err);
    commit(dir.path());
    let mut command = farm.command(&["check"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{} {}", ran.out, ran.err);
}

#[test]
fn an_input_that_matches_no_file_is_named_by_plan_check_and_build() {
    let farm = Farm::shared();
    let config =
        "name = \"noted\"\nversion = \"1\"\n[steps.work]\ninputs = [\"sourc\", \"linked\", \"*.c\"]\nrun = \"true\"\n";
    let dir = kiln_harness::project(&[("kiln.toml", config), ("source/a", "a"), ("b.c", "")]);
    std::os::unix::fs::symlink("b.c", dir.path().join("linked")).unwrap();
    let expected = "step `work` has `sourc` among its `inputs`, which matches no file (ignored files do not count); did you \
                    mean `source`?";
    for arguments in [&["plan"][..], &["check"], &["check", "--json"], &["build", "--progress", "plain"]] {
        let mut command = farm.command(arguments);
        command.current_dir(dir.path());
        let ran = Ran::from(command);
        let words = format!("{}{}", ran.out, ran.err);
        assert_eq!((words.matches(expected).count(), words.matches("among").count()), (1, 1), "{arguments:?}: {words}");
    }
    let built = farm.build(dir.path(), &[]).well();
    assert_eq!(built.of_type("warning")[0]["text"], expected);
}
