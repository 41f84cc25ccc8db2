//! How shells end other than by `exit`: each time with a clear message, and the terminal as it was.

use std::process::Stdio;

use kiln_harness::terminal::Terminal;
use kiln_harness::{Farm, Ran, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{doing, fails, opened};

/// A shell, and how its terminal was before it.
fn opened_on(farm: &Farm) -> (Terminal, String, String) {
    let dir = doing("exit 1", "");
    let build = fails(farm, dir.path());
    let mut terminal = Terminal::start(&farm.command(&["shell", &build, "work"]));
    let before = terminal.modes();
    terminal.until("ends it");
    terminal.types("PS1='re''ady> '\r");
    terminal.until("ready> ");
    assert_ne!(terminal.modes(), before, "expected the terminal to be raw");
    (terminal, before, build)
}

/// No worker runs anything.
fn is_idle(farm: &Farm) {
    until("the farm to run nothing", || {
        let ran = farm.kiln(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&ran.out).ok()?;
        (status["running"] == 0).then_some(())
    });
}

#[test]
fn the_escape_leaves_whatever_the_shell_does() {
    let farm = Farm::start(&["one"]);
    let (mut terminal, before, _) = opened_on(&farm);
    terminal.types("trap '' INT TERM HUP; cat\r");
    terminal.until("cat\r\n");
    terminal.types("some ~. text\r");
    terminal.until("some ~. text\r\nsome ~. text\r\n");
    terminal.types("~.");
    terminal.until("left the shell");
    assert_eq!(terminal.code(), 130);
    assert_eq!(terminal.modes(), before);
    is_idle(&farm);
}

#[test]
fn signals_give_the_terminal_back() {
    let farm = Farm::start(&["one"]);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (mut terminal, before, _) = opened_on(&farm);
        kill(Pid::from_raw(terminal.pid() as i32), signal).unwrap();
        assert_eq!(terminal.code(), 130, "{signal}");
        assert_eq!(terminal.modes(), before, "{signal}");
    }
    is_idle(&farm);
}

#[test]
fn a_worker_that_dies_ends_its_shells_and_they_begin_nowhere_else() {
    let farm = Farm::start(&["one", "two"]);
    let (mut terminal, before, build) = opened_on(&farm);
    let shown = terminal.shown();
    let worker = if shown.contains("on worker `one`") { "one" } else { "two" };
    farm.kill_worker(worker);
    terminal.until(&format!("the connection to worker `{worker}` was lost, and the shell with it"));
    assert_eq!(terminal.code(), 3);
    assert_eq!(terminal.modes(), before);
    // The other worker has room for another one.
    let ran = farm.kiln(&["run", &build, "work", "--", "echo", "again"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "again\n"), "{ran:?}");
}

#[test]
fn a_worker_that_drains_ends_its_shells_at_once_and_lets_its_steps_end() {
    let farm = Farm::start(&["one"]);
    let words = "worker `one`: it is draining, which has ended the shell; open another one, it begins anew";
    let steps = doing("echo begins; sleep 3; echo made > out", "");
    let (mut terminal, before, build) = opened_on(&farm);
    let mut step = farm.start_build(steps.path(), &[]);
    step.until("the step's output", |event| event["text"] == "begins\n");
    terminal.types("trap '' TERM HUP INT; sleep 8123 & echo sleep''s\r");
    terminal.until("sleeps");
    assert_eq!(farm.kiln(&["farm", "drain", "one"]).code, 0);
    terminal.until(words);
    assert_eq!(terminal.code(), 3);
    assert_eq!(terminal.modes(), before);
    step.end().well();
    is_idle(&farm);
    until("the shell's processes to end", || {
        let sleeps = std::process::Command::new("pgrep").args(["-f", "^sleep 8123"]).stdout(Stdio::null()).status();
        (!sleeps.unwrap().success()).then_some(())
    });
    // A command without a terminal is told the same, here by a worker that is asked to stop.
    assert_eq!(farm.kiln(&["farm", "undrain", "one"]).code, 0);
    let mut running = farm.command(&["run", &build, "work", "--", "sh", "-c", "echo runs; sleep 1000"]);
    let mut running = running.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"runs\n");
    assert_eq!(farm.stop_worker("one"), Some(0));
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(3) && said.contains(words), "{ended:?}");
}

#[test]
fn a_coordinator_that_dies_ends_its_shells_also_on_their_workers() {
    let farm = Farm::start(&["one"]);
    let (mut terminal, before, build) = opened_on(&farm);
    terminal.types("sleep 7123 & echo sleep''s\r");
    terminal.until("sleeps");
    farm.restart_coordinator();
    terminal.until("lost the connection to the farm");
    assert_eq!(terminal.code(), 3);
    assert_eq!(terminal.modes(), before);
    until("the shell's processes to end", || {
        let sleeps = std::process::Command::new("pgrep").args(["-f", "^sleep 7123"]).stdout(Stdio::null()).status();
        (!sleeps.unwrap().success()).then_some(())
    });
    farm.wait_for_worker("one");
    let ran = farm.kiln(&["run", &build, "work", "--", "echo", "again"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "again\n"), "{ran:?}");
}

#[test]
fn a_shell_in_which_nothing_happens_is_ended() {
    let farm = Farm::with(&["--shell-idle", "2s"], &["one"]);
    let (mut terminal, before, _) = opened_on(&farm);
    // What is printed counts as well as what is typed.
    terminal.types("for i in 1 2 3 4 5 6; do sleep 0.7; echo tick $i; done\r");
    terminal.until("tick 6");
    terminal.until("nothing was typed or printed for 2 s");
    assert_eq!(terminal.code(), 1);
    assert_eq!(terminal.modes(), before);
    is_idle(&farm);
}

#[test]
fn a_step_that_hangs_is_stopped_at_its_timeout_and_then_there_is_a_shell() {
    let (farm, dir) = (Farm::shared(), doing("echo made > half; sleep 1000", "timeout = \"2s\""));
    let build = fails(farm, dir.path());
    let mut terminal = opened(farm, &[&build, "work"]);
    terminal.types("ls; ps -e 2>&1 | grep -c sleep\r");
    let there = terminal.until("ready> ");
    assert!(there.contains("half"), "{there}");
    terminal.types("exit\r");
    terminal.code();
}

#[test]
fn a_command_that_needs_too_much_memory_is_killed_and_the_shell_goes_on() {
    let (farm, dir) = (Farm::shared(), doing("exit 1", "memory = \"128MiB\""));
    let build = fails(farm, dir.path());
    let mut terminal = opened(farm, &[&build, "work"]);
    terminal.types("head -c 600000000 /dev/zero | tail -c 500000000 | wc -c; echo is a''live\r");
    let printed = terminal.until("is alive");
    assert!(!printed.contains("500000000\r\n"), "expected a limit: {printed}");
    terminal.types("exit 8\r");
    assert_eq!(terminal.code(), 8);
}

/// Most memory that a process has had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn what_prints_without_end_waits_for_whoever_reads() {
    let farm = Farm::start(&["one"]);
    let dir = doing("exit 1", "");
    let build = fails(&farm, dir.path());
    // All of it arrives, and it is in nobody's memory.
    let both = [farm.pids()[0], farm.coordinator_pid()];
    let before = both.map(peak);
    let ran = std::process::Command::new("sh")
        .args(["-c", "\"$0\" run \"$1\" work -- sh -c 'head -c 104857600 /dev/zero' | wc -c"])
        .arg(kiln_harness::run::program())
        .arg(&build)
        .env("KILN_FARM", &farm.url)
        .env("XDG_CACHE_HOME", farm.dir.path().join("cache"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "104857600", "{ran:?}");
    for (after, before) in both.map(peak).into_iter().zip(before) {
        assert!(after.saturating_sub(before) < 32 << 10, "a process has grown from {before} to {after} KiB");
    }
    // Where nobody reads, the program waits: what it has written stops growing long before it is all.
    let script = "i=0; while [ $i -lt 100000 ]; do head -c 4096 /dev/zero; i=$((i+1)); echo $i > /tmp/count; done";
    let mut stuck = farm.command(&["run", &build, "work", "--", "sh", "-c", script]);
    let mut stuck = stuck.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let written = || {
        let path = kiln_harness::find(&farm.dir.path().join("one"), "/tmp/count")?;
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    let mut last = (0, 0);
    let stands = until("the program to wait for its reader", || {
        let now = written().filter(|now| *now > 0)?;
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        (last.1 > 50).then_some(now)
    });
    assert!(stands * 4096 < 32 << 20, "{stands} times 4096 bytes were written, and nobody has read any");
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    is_idle(&farm);
    let after: Ran = farm.kiln(&["run", &build, "work", "--", "true"]);
    assert_eq!(after.code, 0, "{after:?}");
}
