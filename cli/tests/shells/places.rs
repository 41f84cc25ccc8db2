//! What a shell is opened in.

use kiln_harness::bases::busybox_layout;
use kiln_harness::terminal::Terminal;
use kiln_harness::{Built, Farm, Ran, project, until};

use super::{broken, doing, fails, opened};

#[test]
fn after_a_failed_compile_one_mends_a_file_and_compiles() {
    let (farm, dir) = (Farm::shared(), broken());
    let build = fails(farm, dir.path());
    let mut terminal = Terminal::start(&farm.command(&["shell", &build, "compile"]));
    let before = terminal.until("running the step's own command first");
    assert!(before.contains("on worker `"), "{before}");
    let printed = terminal.until("the step's own command exited with code 1");
    assert!(printed.contains("compiling") && printed.contains("bad.c:2"), "{printed}");
    terminal.until("what happens here is thrown away");
    terminal.types("PS1='re''ady> '\r");
    terminal.until("ready> ");
    // What was half built is there, and so is the step's environment.
    terminal.types("ls *.o; echo $FLAVOUR; id -u; pwd\r");
    let there = terminal.until("ready> ");
    assert!(there.contains("good.o") && !there.contains("bad.o"), "{there}");
    assert!(there.contains("mint") && there.contains("/build") && !there.contains("\r\n0\r\n"), "{there}");
    terminal.types("sed -i 's/answer() }/answer(); }/' bad.c && gcc -c bad.c && gcc -o shop good.o bad.o; ./shop; echo \"is $?\"\r");
    terminal.until("is 7\r\n");
    terminal.types("exit 3\r");
    assert_eq!(terminal.code(), 3, "expected the exit code of the shell");
    // Nothing of it is kept: the step fails as before, and the next shell begins anew.
    fails(farm, dir.path());
    let ran = farm.kiln(&["run", &build, "compile", "--", "sh", "-c", "grep -c 'answer() }' bad.c; ls"]);
    assert_eq!((ran.code, ran.out.lines().next()), (0, Some("1")), "{ran:?}");
    assert!(!ran.out.contains("shop\n"), "{ran:?}");
}

#[test]
fn a_terminal_has_a_size_job_control_and_interrupts() {
    let (farm, dir) = (Farm::shared(), doing("exit 4", ""));
    let build = fails(farm, dir.path());
    let mut terminal = opened(farm, &[&build, "work"]);
    terminal.types("stty size; tty; echo $TERM\r");
    let told = terminal.until("ready> ");
    assert!(told.contains("24 80") && told.contains("/dev/pts/0") && told.contains("xterm"), "{told}");
    terminal.types("trap 'echo resi''zed' WINCH\r");
    terminal.until("ready> ");
    terminal.resize(40, 100);
    terminal.types("\r");
    terminal.until("resized");
    terminal.types("stty size\r");
    terminal.until("40 100");
    // Ctrl-C ends the command, and neither the shell nor `kiln`.
    terminal.until("ready> ");
    terminal.types("sleep 999; echo slept ''$?\r");
    until("the first sleep to begin", || processes("sleep 999").then_some(()));
    terminal.until("\n");
    terminal.types("\u{3}");
    terminal.until("ready> ");
    terminal.types("sleep 998\r");
    terminal.until("sleep 998");
    until("the sleep to begin", || processes("sleep 998").then_some(()));
    terminal.types("\u{1a}");
    terminal.until("Stopped");
    terminal.types("jobs; kill %1; wait\r");
    terminal.until("ready> ");
    // `less` shows a page and waits for keys.
    terminal.types("seq 1000 | less\r");
    terminal.until("39\r\n");
    terminal.types("G");
    terminal.until("1000");
    terminal.types("q");
    terminal.types("exit\r");
    terminal.code();
}

/// Whether a process runs with this command line.
fn processes(line: &str) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|found| String::from_utf8_lossy(&found).replace('\0', " ").trim() == line)
}

#[test]
fn before_the_command_there_is_nothing_of_what_it_made() {
    let (farm, dir) = (Farm::shared(), doing("echo made > half; exit 1", ""));
    let build = fails(farm, dir.path());
    let look = ["--", "sh", "-c", "ls; exit 5"];
    let ran = farm.kiln(&[&["run", &build, "work"], &look[..]].concat());
    assert_eq!((ran.code, ran.out.contains("half")), (5, true), "{ran:?}");
    assert!(ran.err.contains("the step's own command exited with code 1"), "{ran:?}");
    let ran = farm.kiln(&[&["run", "--before", &build, "work"], &look[..]].concat());
    assert_eq!((ran.code, ran.out.contains("half")), (5, false), "{ran:?}");
    assert!(!ran.err.contains("own command"), "{ran:?}");
}

#[test]
fn a_command_has_three_streams_and_passes_its_end_on() {
    let (farm, dir) = (Farm::shared(), doing("echo from the step; exit 1", ""));
    let build = fails(farm, dir.path());
    let script = "tr a-z A-Z; echo wrong >&2; exit 42";
    let mut command = farm.command(&["run", &build, "work", "--", "sh", "-c", script]);
    let input = tempfile::tempdir().unwrap();
    std::fs::write(input.path().join("in"), "some words\n".repeat(20_000)).unwrap();
    command.stdin(std::fs::File::open(input.path().join("in")).unwrap());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 42, "{}", ran.err);
    assert!(ran.out == "SOME WORDS\n".repeat(20_000), "expected the input in capitals: {} bytes", ran.out.len());
    assert!(ran.err.contains("wrong\n") && ran.err.contains("from the step\n"), "{}", ran.err);
    let ran = farm.kiln(&["run", &build, "work", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(ran.code, 128 + 15, "{ran:?}");
    let ran = farm.kiln(&["run", &build, "work", "--", "no-such-program"]);
    assert_eq!(ran.code, 127, "{ran:?}");
    assert!(ran.err.contains("`no-such-program` is not installed"), "{ran:?}");
}

#[test]
fn a_build_that_fails_can_end_in_a_shell() {
    let (farm, dir) = (Farm::shared(), broken());
    let mut command = farm.command(&["build", "--shell-on-failure"]);
    command.current_dir(dir.path());
    let mut terminal = Terminal::start(&command);
    terminal.until("a shell in the place of step `compile`");
    terminal.types("ls *.o; exit\r");
    terminal.until("good.o");
    assert_eq!(terminal.code(), 1, "expected the build's exit code");
    let mut command = farm.command(&["build", "--shell-on-failure"]);
    let ran = Ran::from({
        command.current_dir(dir.path());
        command
    });
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("needs a terminal"), "{ran:?}");
}

#[test]
fn a_step_that_succeeded_has_a_place_too_and_a_build_shows_who_was_there() {
    let (farm, dir) = (Farm::shared(), doing("echo made > out", ""));
    let id = farm.build(dir.path(), &[]).well().id();
    let ran = farm.kiln(&["run", &id[..12], "work", "--", "cat", "out"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "made\n"), "{ran:?}");
    let listed = farm.kiln(&["builds", "--json"]);
    let builds: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    let build = builds.as_array().unwrap().iter().find(|build| build["build"] == id).unwrap();
    assert_eq!(build["shells"][0]["step"], "work", "{build}");
    assert_eq!(build["shells"][0]["command"][0], "cat", "{build}");
}

/// A project with an image of busybox in its directory `base`. `None` if there is no busybox.
pub(super) fn with_base(files: &[(&str, &str)]) -> Option<tempfile::TempDir> {
    let dir = project(files);
    std::fs::create_dir(dir.path().join("base")).unwrap();
    busybox_layout(&dir.path().join("base"))?;
    Some(dir)
}

#[test]
fn a_step_in_an_image_has_the_images_files_and_user_in_a_terminal_too() {
    let config = "name = \"p\"\nversion = \"1\"\n[steps.work]\nimage = \"./base\"\nrun = 'echo half > half; echo gone > /tmp/x; exit 3'\n\
                  outputs = [\"out\"]\n[artifacts.p]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let Some(dir) = with_base(&[("kiln.toml", config), ("in", "given\n")]) else { return };
    let farm = Farm::shared();
    let build = fails(farm, dir.path());
    let mut terminal = Terminal::start(&farm.command(&["shell", &build, "work"]));
    terminal.until("exited with code 3");
    terminal.until("ends it");
    terminal.types("id -u; pwd; cat half in /tmp/x; test -e /usr/bin/env || echo its ''own; stty size 2>&1; tty\r");
    let there = terminal.until("/dev/pts/0");
    for line in ["1000\r\n", "/build\r\n", "half\r\n", "given\r\n", "gone\r\n", "its own\r\n"] {
        assert!(there.contains(line), "expected `{line}` in {there}");
    }
    terminal.types("exit 6\r");
    assert_eq!(terminal.code(), 6);
}

#[test]
fn a_command_of_a_dockerfile_has_its_root_as_root_and_leaves_it_as_it_was() {
    let dockerfile =
        "FROM base\nRUN echo before > /before; touch -d @1000000000 /before\nRUN touch /half && test -e /nowhere\n";
    let config =
        "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontexts = { base = \"oci-layout://base\" }\n";
    let Some(dir) = with_base(&[("kiln.toml", config), ("Dockerfile", dockerfile)]) else { return };
    let farm = Farm::shared();
    let built: Built = farm.build(dir.path(), &[]);
    assert_eq!(built.0.code, 1, "{:?}", built.0);
    let failed = built.of_type("step_finished").into_iter().find(|event| event["exit_code"] == 1).unwrap();
    let (id, step) = (built.id(), failed["step"].as_str().unwrap().to_owned());
    let script = "id -u; cat /before; stat -c %Y /before; ls /half; rm -r /before /bin/busybox && echo removed";
    for _ in 0..2 {
        let ran = farm.kiln(&["run", &id, &step, "--", "sh", "-c", script]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "0\nbefore\n1000000000\n/half\nremoved\n"), "{ran:?}");
    }
}

#[test]
fn a_step_with_the_network_has_it_in_its_shell_and_no_other_has() {
    let farm = Farm::shared();
    let interfaces = |more: &str| {
        let dir = doing("exit 1", more);
        let build = fails(farm, dir.path());
        let ran = farm.kiln(&["run", "--before", &build, "work", "--", "sh", "-c", "tail -n +3 /proc/net/dev | wc -l"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim().parse::<u32>().unwrap()
    };
    assert_eq!(interfaces(""), 1, "expected a loopback only");
    assert!(interfaces("network = true") > 1, "expected a network");
}

#[test]
fn a_step_with_the_network_has_its_workers_proxy_in_a_shell_too_without_the_password() {
    let farm = Farm::start(&[]);
    let proxy = ("HTTPS_PROXY", "http://ann:the-proxys-password@proxy.example:3128");
    farm.start_worker_in(&farm.url, "one", &[], &[proxy]);
    farm.wait_for_worker("one");
    let (with, without) = (doing("exit 5", "network = true"), doing("exit 5", ""));
    let show = |dir: &tempfile::TempDir| {
        let build = fails(&farm, dir.path());
        farm.kiln(&["run", &build, "work", "--", "sh", "-c", "echo \"proxy ${HTTPS_PROXY:-none} ${#HTTPS_PROXY}\""])
    };
    let ran = show(&with);
    assert_eq!((ran.code, ran.out), (0, format!("proxy http://ann:***@proxy.example:3128 {}\n", proxy.1.len())));
    let ran = show(&without);
    assert_eq!((ran.code, ran.out.as_str()), (0, "proxy none 0\n"), "expected none where there is no network");
}
