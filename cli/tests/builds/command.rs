//! The command itself: interrupted, cancelled, without a farm, on a terminal, with its output closed.

use crate::{unique, work};
use kiln_harness::{Farm, Ran, cannot_run, project, until};

#[test]
fn a_detached_build_is_attached_to_and_gives_the_same_events() {
    let farm = Farm::shared();
    let dir = project(&[
        (
            "kiln.toml",
            "name = \"p\"\nversion = \"1\"\n[steps.work]\nrun = \"echo hello; sleep 1; cp in out\"\noutputs = [\"out\"]\n[artifacts.p]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"\n",
        ),
        ("in", &unique()),
    ]);
    let mut command = farm.command(&["build", "--detach"]);
    command.current_dir(dir.path());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let id = ran.out.trim().to_owned();
    let mut command = farm.command(&["attach", &id, "--progress", "json"]);
    command.current_dir(dir.path());
    let built = kiln_harness::Built(Ran::from(command)).well();
    assert_eq!(built.id(), id);
    assert_eq!(built.log(), "hello\n");
    assert!(dir.path().join("kiln-out").is_dir(), "expected `attach` to download the artifacts");
}

#[test]
fn ctrl_c_cancels_the_build_and_its_step() {
    let farm = Farm::shared();
    let marker = format!("{}.25", 70_000 + std::process::id() % 10_000);
    let dir = work(&format!("echo begins; sleep {marker}"), "");
    let mut build = farm.start_build(dir.path(), &[]);
    build.until("the step's first output", |event| event["text"] == "begins\n");
    build.interrupt();
    let built = build.end();
    assert_eq!((built.0.code, built.finished()["status"].as_str()), (130, Some("cancelled")));
    until("the command to end", || {
        let running = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).contains(&marker)
        });
        (!running).then_some(())
    });
    let mut detached = farm.command(&["build", "--detach"]);
    let sleeps = work("sleep 1000", "");
    detached.current_dir(sleeps.path());
    let id = Ran::from(detached).out.trim().to_owned();
    assert_eq!(farm.kiln(&["cancel", &id]).code, 0);
    assert_eq!(farm.kiln(&["attach", &id]).code, 130);
}

#[test]
fn a_client_that_vanishes_leaves_its_build_to_the_farm() {
    let farm = Farm::shared();
    let dir = work(&format!("echo begins {}; sleep 2; echo ends", unique()), "");
    let mut build = farm.start_build(dir.path(), &[]);
    let id = build.until("its start", |event| event["type"] == "build_started")["build"].as_str().unwrap().to_owned();
    build.kill();
    let ended = farm.kiln(&["attach", &id, "--progress", "json"]);
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    assert!(ended.out.contains("ends"));
}

#[test]
fn words_that_nobody_can_hear_are_no_failure() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let dir = kiln_harness::example("rust");
    let mut command = Farm::shared().command(&["init"]);
    command.current_dir(dir.path()).stderr(full());
    assert_eq!(command.status().unwrap().code(), Some(0));
    let mut command = Farm::shared().command(&["logs", "no-such-build"]);
    command.stderr(full());
    assert_eq!(command.status().unwrap().code(), Some(2));
    let more = "outputs = [\"out\"]\n[artifacts.heard]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"";
    let dir = work("echo words; cp in out", more);
    for progress in ["plain", "tty", "json"] {
        let mut command = Farm::shared().command(&["build", "--progress", progress]);
        command.current_dir(dir.path()).stderr(full());
        let ran = Ran::from(command);
        assert_eq!((ran.code, ran.out.contains("kiln-out/heard")), (0, true), "{progress}: {}", ran.out);
        // Data that cannot be written is a failure, and the message names the right stream.
        let mut command = Farm::shared().command(&["build", "--progress", progress]);
        let ran = command.current_dir(dir.path()).stdout(full()).stderr(std::process::Stdio::piped()).output().unwrap();
        let words = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{progress}: {words}");
        assert!(words.contains("cannot write to standard output"), "{progress}: {words}");
    }
}

#[test]
fn without_a_farm_one_runs_inside_the_command() {
    let dir = work("cp in out; echo embedded", "outputs = [\"out\"]");
    let cache = tempfile::tempdir().unwrap();
    let build = || {
        let mut command = Farm::shared().command(&["build", "--progress", "json"]);
        command.env_remove("KILN_FARM").env("XDG_CACHE_HOME", cache.path()).current_dir(dir.path());
        kiln_harness::Built(Ran::from(command)).well()
    };
    let first = build();
    assert_eq!((first.caches()["work"].as_str(), first.log().as_str()), ("miss", "embedded\n"));
    assert_eq!(build().caches()["work"], "hit", "expected the store to outlive the command");
}

#[test]
fn the_farm_inside_the_command_drops_its_oldest_artifacts_and_says_so() {
    let config = "name = \"NAME\"\nversion = \"1\"\n[steps.make]\nrun = \"yes NAME | head -c 6000000 > out\"\noutputs = [\"out\"]\n\
                  [artifacts.NAME]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"binary\"\ncheck_elf = false\n";
    let cache = tempfile::tempdir().unwrap();
    let kiln = |dir: &std::path::Path, arguments: &[&str]| {
        let mut command = Farm::shared().command(arguments);
        command.env_remove("KILN_FARM").env("XDG_CACHE_HOME", cache.path()).env("KILN_STORE_SIZE", "16MiB");
        Ran::from({
            command.current_dir(dir);
            command
        })
    };
    let ids: Vec<String> = ["one", "two", "three"]
        .into_iter()
        .map(|name| {
            let dir = kiln_harness::project(&[("kiln.toml", &config.replace("NAME", name))]);
            let built = kiln_harness::Built(kiln(dir.path(), &["build", "--progress", "json"])).well();
            built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let last = kiln(dir.path(), &["fetch", &ids[2]]);
    assert_eq!(last.code, 0, "{}", last.err);
    let first = kiln(dir.path(), &["fetch", &ids[0]]);
    assert_eq!(first.code, 3, "{}", first.err);
    assert!(
        first.err.contains("no longer has all of artifact `one`") && first.err.contains("build it again"),
        "{}",
        first.err
    );
}

#[test]
fn up_is_a_whole_farm_and_ends_with_ctrl_c() {
    let data = tempfile::tempdir().unwrap();
    let mut command = Farm::shared().command(&["up", "--workers", "2", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data.path());
    let mut up = kiln_harness::Lasting::start(command);
    let line = up.line_with("ready: ");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let mut command = Farm::shared().command(&["build", "--progress", "json", "--farm", &url]);
    let dir = work("echo up", "");
    command.current_dir(dir.path());
    assert_eq!(kiln_harness::Built(Ran::from(command)).well().log(), "up\n");
    up.interrupt();
    assert_eq!(up.wait(), Some(0));
    let mut command = Farm::shared().command(&["workers", "--farm", &url]);
    command.current_dir(dir.path());
    assert_eq!(Ran::from(command).code, 3, "expected no farm to answer any more");
}

/// `kiln up` that must fail: its exit code, and the one error that it prints.
fn up_fails(arguments: &[&str], data: &std::path::Path) -> (i32, String) {
    let mut command = Farm::shared().command(&["up", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data).args(arguments);
    let ran = Ran::from(command);
    let errors: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("error:")).collect();
    let [error] = errors[..] else { panic!("expected one error: {}", ran.err) };
    (ran.code, error.to_owned())
}

#[test]
fn up_says_once_what_is_wrong() {
    let data = tempfile::tempdir().unwrap();
    let (code, error) = up_fails(&["--store-size", "much"], data.path());
    assert_eq!((code, error.contains("'much' for '--store-size <SIZE>'")), (2, true), "{error}");
    let (code, error) = up_fails(&["--queue-timeout", "long"], data.path());
    assert_eq!((code, error.contains("'long' for '--queue-timeout <TIME>'")), (2, true), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, error) = up_fails(&["--web-listen", &address], data.path());
    assert!(error.starts_with(&format!("error: cannot listen on `{address}`")), "{error}");
    assert_eq!(code, 2, "{error}");
    // What only the parts themselves find out.
    for (part, begin) in [("coordinator", "error: coordinator: "), ("worker-1", "error: worker-1: ")] {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join(part), "not a directory").unwrap();
        let (code, error) = up_fails(&[], data.path());
        assert!(error.starts_with(begin) && error.contains(&*data.path().join(part).to_string_lossy()), "{error}");
        assert_eq!(code, 3, "{error}");
    }
}

#[test]
fn up_gives_no_default_port_what_was_asked_for_by_name() {
    let data = tempfile::tempdir().unwrap();
    // The caches would be at the port after the farm's.
    let (listen, next) = loop {
        let listen = kiln_harness::free_url().replace("http://", "");
        let (host, port) = listen.rsplit_once(':').unwrap();
        let next = format!("{host}:{}", port.parse::<u32>().unwrap() + 1);
        if std::net::TcpListener::bind(&next).is_ok() {
            break (listen, next);
        }
    };
    let mut command = Farm::shared().command(&["up", "--workers", "1", "--listen", &listen, "--web-listen", &next]);
    command.arg("--data-dir").arg(data.path());
    let mut up = kiln_harness::Lasting::start(command);
    assert!(up.line_with("ready: ").starts_with(&format!("ready: http://{listen} with 1 worker (")));
    assert!(up.line_with("kiln web").contains(&format!("http://{next} ")));
    up.interrupt();
    assert_eq!(up.wait(), Some(0));
}

#[test]
fn the_progress_on_a_terminal_is_live_and_ends_with_a_summary() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return cannot_run("`script` of util-linux, which gives a terminal");
    }
    let dir = work(&format!("echo {}; sleep 1; echo last words", unique()), "");
    let kiln = format!("{} build", env!("CARGO_BIN_EXE_kiln"));
    let mut command = std::process::Command::new("script");
    command
        .args(["-qec", &kiln, "/dev/null"])
        .env("KILN_FARM", &Farm::shared().url)
        .env("TERM", "xterm")
        .current_dir(dir.path());
    let text = output_of_command(command);
    assert!(text.contains("\u{1b}["), "expected a live display");
    for words in ["work", "miss", "success", "sent", "reused", "0/1 steps", "\u{1b}[32m✓"] {
        assert!(text.contains(words), "expected `{words}` in {text}");
    }
}

fn output_of_command(mut command: std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
