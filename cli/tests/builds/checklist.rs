//! `kiln check`, and the notes of a plan.

use std::path::Path;

use crate::real::{self, Farm, Ran, commit, until, write};

#[test]
fn the_checklist_says_pass_or_fail_with_the_mend() {
    let farm = Farm::shared();
    let dir = real::example("rust");
    commit(dir.path());
    let mut command = farm.command(&["check"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    for words in ["lock", "store", "environment"] {
        assert!(ran.out.to_lowercase().contains(words), "expected `{words}` in {}", ran.out);
    }
    assert_eq!(ran.code, 1, "nothing builds it on every push yet: {}", ran.out);
    real::git(dir.path(), &["remote", "add", "origin", "https://git.example/greet.git"]);
    write(dir.path(), ".github/workflows/build.yml", "on: push\njobs:\n  b:\n    steps:\n      - run: kiln build\n");
    write(dir.path(), "kiln.toml", &output_of(farm, dir.path()));
    commit(dir.path());
    let mut command = farm.command(&["check"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{} {}", ran.out, ran.err);
}

/// The plan of an example as `kiln.toml`, with a target that is this machine.
fn output_of(farm: &Farm, dir: &Path) -> String {
    let mut command = farm.command(&["init"]);
    command.current_dir(dir);
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let os = until("a worker's system", || {
        farm.workers().first().and_then(|one| one["environment"]["os"].as_str().map(str::to_owned))
    });
    let written = std::fs::read_to_string(dir.join("kiln.toml")).unwrap();
    format!("{written}\n[targets.prod]\nplatform = \"linux/amd64\"\nos = \"{os}\"\nglibc = \"2.36\"\n")
}

#[test]
fn an_input_that_matches_no_file_is_named_by_plan_check_and_build() {
    let farm = Farm::shared();
    let config =
        "name = \"noted\"\nversion = \"1\"\n[steps.work]\ninputs = [\"sourc\", \"linked\", \"*.c\"]\nrun = \"true\"\n";
    let dir = real::project(&[("kiln.toml", config), ("source/a", "a"), ("b.c", "")]);
    std::os::unix::fs::symlink("b.c", dir.path().join("linked")).unwrap();
    let expected = "step `work` has `sourc` among its `inputs`, which matches no file (what git ignores is none); did you \
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
