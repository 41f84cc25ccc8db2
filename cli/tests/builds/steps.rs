//! Steps: what they get, what they produce, how they end.

use std::os::unix::fs::PermissionsExt;

use crate::{CHAIN, unique, work};
use kiln_harness::{Farm, Ran, commit, project, unpack, write};

#[test]
fn steps_get_what_they_need_and_only_what_changed_runs_again() {
    let farm = Farm::shared();
    let dir = project(&[("kiln.toml", CHAIN), ("in", &format!("abc {}\n", unique())), ("extra", "extra\n")]);
    let first = farm.build(dir.path(), &[]).well();
    let finished = first.of_type("step_finished");
    assert_eq!(finished.len(), 5);
    assert!(first.caches().values().all(|cache| cache == "miss"));
    let log = first.log();
    for shard in 1..=3 {
        assert!(log.contains(&format!("shard {shard} of 3")), "{log}");
    }
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert!(std::fs::read_to_string(unpacked.path().join("d/link")).unwrap().ends_with("extra\n"));
    assert_eq!(std::fs::metadata(unpacked.path().join("d/two")).unwrap().permissions().mode() & 0o777, 0o755);

    let second = farm.build(dir.path(), &[]).well();
    assert!(second.caches().values().all(|cache| cache == "hit"));
    assert!(second.of_type("step_started").is_empty(), "expected a hit not to run");
    write(dir.path(), "extra", "other\n");
    let third = farm.build(dir.path(), &[]).well().caches();
    assert_eq!([&third["one"], &third["two"]], ["hit", "miss"]);
    write(dir.path(), "unrelated", "nobody names this\n");
    let fourth = farm.build(dir.path(), &[]).well().caches();
    assert!(fourth.values().all(|cache| cache == "hit"), "{fourth:?}");
    let again = farm.build(dir.path(), &["--no-cache"]).well().caches();
    assert!(again.values().all(|cache| cache == "miss"), "{again:?}");
}

#[test]
fn shards_are_spread_over_the_workers() {
    let dir = work(&format!("echo {} $KILN_SHARD; sleep 1", unique()), "shards = 4");
    let built = Farm::shared().build(dir.path(), &[]).well();
    let mut workers: Vec<String> =
        built.of_type("step_finished").iter().map(|event| event["worker"].as_str().unwrap().to_owned()).collect();
    workers.sort();
    workers.dedup();
    assert_eq!(workers, ["one", "two"]);
}

#[test]
fn equal_steps_of_two_builds_run_once() {
    let farm = Farm::shared();
    let run = format!("echo {}; sleep 2; od -An -N8 -tx8 /dev/urandom > out; cat out", unique());
    let (one, two) = (work(&run, "outputs = [\"out\"]"), work(&run, "outputs = [\"out\"]"));
    let mut first = farm.start_build(one.path(), &[]);
    first.started("work");
    let second = farm.build(two.path(), &[]).well();
    let first = first.end().well();
    assert_eq!(first.caches()["work"], "miss");
    assert_eq!(second.caches()["work"], "merged");
    assert_eq!(first.log(), second.log(), "expected both to see the output of the one run");
}

#[test]
fn a_failed_step_ends_the_build_and_its_whole_log_stays() {
    let farm = Farm::shared();
    let dir = work("i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo line $i; done; echo oh no >&2; exit 7", "");
    let built = farm.build(dir.path(), &[]);
    assert_eq!(built.0.code, 1);
    assert_eq!(built.finished()["status"], "failed");
    assert!(built.message().contains("step `work` failed with exit code 7"), "{}", built.message());
    let plain = Ran::from({
        let mut command = farm.command(&["build", "--progress", "plain"]);
        command.current_dir(dir.path());
        command
    });
    assert!(
        plain.err.contains("line 500") && plain.err.contains("oh no") && plain.err.contains("kiln logs"),
        "{}",
        plain.err
    );
    let logs = farm.kiln(&["logs", &built.id(), "work"]);
    let lines: Vec<&str> = logs.out.lines().filter(|line| line.contains("line ")).collect();
    assert_eq!((logs.code, lines.len()), (0, 500), "{}", logs.err);
    assert!(logs.out.contains("oh no"));
}

#[test]
fn what_goes_wrong_in_a_step_is_said_in_words() {
    for (run, more, expected) in [
        ("true", "outputs = [\"absent\"]", "did not produce its output `absent`"),
        ("sleep 1000", "timeout = \"1s\"", "after its 1 s timeout"),
        ("head -c 900M /dev/zero | tail | wc -c; exit 1", "memory = \"64MiB\"", "memory"),
        ("nothing-of-this-name", "", "exit code 127: a command was not found"),
        ("true", "tools = [\"nothing-of-this-name\"]", "exit code 127: a command was not found"),
        ("kill -ABRT $$", "", "killed by signal 6"),
        ("exit 254", "", "failed with exit code 254"),
        ("echo 'a.c:3:5: error: no semicolon' >&2; seq 100; exit 2", "", "exit code 2: a.c:3:5: error: no semicolon"),
        ("mkfifo pipe", "outputs = [\"pipe\"]", "`pipe` is a socket, a pipe or a device"),
        ("mkdir d; touch \"d/$(printf '\\377')\"", "outputs = [\"d\"]", "is not valid UTF-8"),
        ("rmdir d; ln -s /etc d", "outputs = [\"d/passwd\"]", "below the symbolic link `d`"),
        ("i=0; while :; do sleep 1000 & done", "", "processes"),
        // A sparse file: no blocks on the disk, but too large to read. Detected before any of it is read.
        (
            "truncate -s 40G a b",
            "outputs = [\"a\", \"b\"]",
            "output `b` brings the command's outputs to more than 64 GiB",
        ),
        ("mkdir d; truncate -s 40G d/a d/b", "outputs = [\"d\"]", "has holes"),
    ] {
        let built = Farm::shared().build(work(&format!("echo tried; {run}"), more).path(), &[]);
        assert_eq!(built.0.code, 1, "{run}: {}", built.0.err);
        let tries = built.log().matches("tried\n").count();
        assert!(tries <= 1, "{run}: expected no second try: {}", built.log());
        assert!(built.message().contains(expected), "{run}: expected `{expected}` in `{}`", built.message());
        assert!(built.message().contains("work"), "{run}: expected the step in `{}`", built.message());
    }
}

#[test]
fn an_output_that_its_owner_may_not_read_is_the_projects_fault_where_the_worker_is_not_root() {
    use std::os::unix::fs::{PermissionsExt, chown};
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        return kiln_harness::cannot_run("only root starts a worker as somebody else");
    }
    let farm = Farm::start(&[]);
    std::fs::set_permissions(farm.dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let state = farm.dir.path().join("plain");
    std::fs::create_dir(&state).unwrap();
    chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    let plain = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    farm.start_worker_behind(&plain, &farm.url, "plain", &[], &[("HOME", "/nonexistent")]);
    farm.wait_for_worker("plain");
    for closes in ["mkdir -p d/closed; chmod 0 d/closed", "mkdir d; echo x > d/closed; chmod 0 d/closed"] {
        let built = farm.build(work(&format!("echo tried; {closes}"), "outputs = [\"d\"]").path(), &[]);
        assert_eq!(built.0.code, 1, "{closes}: {}", built.0.err);
        assert_eq!(built.log().matches("tried\n").count(), 1, "{closes}: expected one try: {}", built.log());
        let words = "cannot read `closed` of output `d`: the command removed the permission";
        assert!(built.message().contains(words), "{closes}: {}", built.message());
    }
    farm.build(work("mkdir d; echo x > d/open", "outputs = [\"d\"]").path(), &[]).well();
}

#[test]
fn a_build_that_is_cancelled_while_its_outputs_are_hashed_ends_without_hashing_the_rest() {
    const SIZE: u64 = 60 << 30;
    let farm = Farm::start(&["one"]);
    let name = format!("holes-{}", unique());
    let dir = work(&format!("mkdir d; truncate -s 60G d/{name}"), "outputs = [\"d\"]");
    let mut build = farm.start_build(dir.path(), &[]);
    build.started("work");
    // How far the worker has read while it has the file open.
    let position = || {
        let open = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let files = farm.pids().into_iter().flat_map(|pid| open(pid).map(move |file| (pid, file)));
        let is_it = |file: &std::fs::DirEntry| std::fs::read_link(file.path()).is_ok_and(|path| path.ends_with(&name));
        let (pid, file) = files.into_iter().find(|(_, file)| is_it(file))?;
        let info = format!("/proc/{pid}/fdinfo/{}", file.file_name().to_string_lossy());
        let info = std::fs::read_to_string(info).ok()?;
        info.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse::<u64>().ok())
    };
    kiln_harness::until("the worker to read the output", position);
    build.interrupt();
    let built = build.end();
    assert_eq!((built.0.code, built.finished()["status"].as_str()), (130, Some("cancelled")));
    let mut last = 0;
    kiln_harness::until("the worker to let go of it", || match position() {
        Some(at) => {
            last = at;
            None
        }
        None => Some(()),
    });
    assert!(last < SIZE / 2, "expected the rest not to be read, but {last} bytes were");
    farm.build(work("mkdir d; echo x > d/small", "outputs = [\"d\"]").path(), &[]).well();
}

#[test]
fn a_failure_is_told_once_with_its_first_error() {
    let farm = Farm::shared();
    let dir = work("echo 'x.c:1:2: error: first' >&2; seq 1000 1100; echo 'y.c:1:2: error: second' >&2; exit 2", "");
    let mut command = farm.command(&["build", "--progress", "plain"]);
    command.current_dir(dir.path());
    let failed = Ran::from(command);
    let told = failed.err.matches("failed with exit code 2").count();
    assert_eq!((failed.code, told), (1, 1), "{}", failed.err);
    let stopped = farm.build(work("sleep 1000", "timeout = \"1s\"").path(), &[]);
    assert!(stopped.of_type("step_finished")[0]["exit_code"].is_null(), "expected no exit code");
}

#[test]
fn a_stamped_step_knows_what_is_built_and_the_command_line_sets_variables() {
    let farm = Farm::shared();
    let dir = work("echo $KILN_VERSION $KILN_COMMIT $KILN_DIRTY $MODE", "stamp = true\nenv = { MODE = \"plain\" }");
    let head = commit(dir.path());
    let log = farm.build(dir.path(), &[]).well().log();
    assert!(log.contains(&format!("1 {head} false plain")), "{log}");
    write(dir.path(), "in", "edited\n");
    let log = farm.build(dir.path(), &["--env", "MODE=all", "--env", "work:MODE=one"]).well().log();
    assert!(log.contains(&format!("1 {head} true one")), "{log}");
    let unknown = farm.build(dir.path(), &["--env", "wrok:MODE=one"]);
    assert!(unknown.0.code == 2 && unknown.0.err.contains("did you mean `work`?"), "{}", unknown.0.err);
}

#[test]
fn much_output_and_output_that_is_no_text_comes_through() {
    let farm = Farm::shared();
    let built = farm.build(work("printf 'a\\377b\\n'", "").path(), &[]).well();
    assert!(built.log().contains("a\u{fffd}b"), "{}", built.log());
    let built =
        farm.build(work("head -c 30000000 /dev/zero | tr '\\0' x | fold -w 99; echo the end", "").path(), &[]).well();
    let logs = farm.kiln(&["logs", &built.id(), "work"]);
    assert!(logs.out.len() > 30_000_000 && logs.out.contains("the end"), "{} bytes", logs.out.len());
    assert!(built.log().len() < 10_000_000, "expected the live log to be bounded; the complete one is in the store");
    let run = "head -c 30000000 /dev/zero | tr '\\0' x | fold -w 99; echo oh no; exit 3";
    let mut command = farm.command(&["build", "--progress", "plain"]);
    let dir = work(run, "");
    command.current_dir(dir.path());
    let failed = Ran::from(command);
    assert!(failed.err.contains("bytes omitted") && failed.err.contains("oh no"), "expected the end of the output");
}

#[test]
fn a_git_ignored_file_is_no_input() {
    let farm = Farm::shared();
    let dir = work("ls -A", "");
    write(dir.path(), ".gitignore", "ignored\n");
    write(dir.path(), "ignored", "x");
    commit(dir.path());
    let built = farm.build(dir.path(), &[]).well();
    assert!(!built.log().lines().any(|line| line == "ignored"), "{}", built.log());
}
