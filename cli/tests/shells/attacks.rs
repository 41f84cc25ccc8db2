//! A shell is no stronger than its step, and leaves nothing.

use kiln_harness::{Farm, Ran, project};
use uuid::Uuid;

use super::{doing, fails};

/// Attempts that a step must not succeed with. Each prints `out` if it does.
const ATTEMPTS: [&str; 7] = [
    "cat /etc/shadow >/dev/null 2>&1 && echo out",
    "mount -t tmpfs none /mnt 2>/dev/null && echo out",
    "unshare -U true 2>/dev/null && echo out",
    "touch /usr/bin/x 2>/dev/null && echo out",
    "echo 1 > /proc/sys/kernel/ns_last_pid 2>/dev/null && echo out",
    "ls /root 2>/dev/null | grep -q . && echo out",
    "(exec 3<>/dev/tcp/127.0.0.1/PORT) 2>/dev/null && echo out",
];

#[test]
fn escapes_fail_as_they_do_in_the_step() {
    let farm = Farm::shared();
    let port = farm.url.rsplit(':').next().unwrap();
    let attempts = ATTEMPTS.join("\n").replace("PORT", port);
    let id = "id; ulimit -n; grep -E 'Cap|Seccomp:|NoNewPrivs' /proc/self/status; ls /proc/self/ns | wc -l; hostname; ls /dev";
    let script = format!("exec 2>/dev/null\n{attempts}\n{id}\n");
    let dir = project(&[
        (
            "kiln.toml",
            "name = \"does\"\n[steps.work]\nrun = \"bash ./attempts; exit 1\"\noutputs = [\"out\"]\n[artifacts.out]\nfrom = \"work\"\nfiles = [\"out\"]\n",
        ),
        ("attempts", &script),
        ("salt", &Uuid::new_v4().to_string()),
    ]);
    let built = farm.build(dir.path(), &[]);
    let in_step = built.log();
    let ran = farm.kiln(&["run", &built.id(), "work", "--", "bash", "./attempts"]);
    assert!(ran.out.lines().all(|line| line != "out"), "an attempt succeeded: {}", ran.out);
    assert!(ran.out.contains("CapEff"), "{ran:?}");
    assert_eq!(ran.out, in_step, "expected the same user, limits, capabilities, filter and devices");
}

#[test]
fn what_a_shell_makes_is_nobodys_result() {
    let farm = Farm::shared();
    // It fails when it has no file that only a shell makes, so a success could only come from one.
    let dir = doing("test -e forged && cp forged out", "");
    let build = fails(farm, dir.path());
    let forge = "echo forged > forged; cp forged out; exit 0";
    for more in [&[][..], &["--before"]] {
        let ran = farm.kiln(&[&["run"], more, &[&build, "work", "--", "sh", "-c", forge]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    fails(farm, dir.path());
    // A step that would be a hit stays one, and what it made stays as it was.
    let dir = doing("echo true > out", "");
    let id = farm.build(dir.path(), &[]).well().id();
    let ran: Ran = farm.kiln(&["run", &id, "work", "--", "sh", "-c", "echo false > out"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let again = farm.build(dir.path(), &[]).well();
    assert_eq!(again.caches()["work"], "hit", "{:?}", again.caches());
    let made = kiln_harness::find(&dir.path().join("kiln-out"), "/out").unwrap();
    assert_eq!(std::fs::read_to_string(made).unwrap(), "true\n");
}

#[test]
fn a_build_that_runs_while_a_shell_is_open_neither_waits_for_it_nor_joins_it() {
    let farm = Farm::shared();
    let dir = doing("echo made > out", "");
    let id = farm.build(dir.path(), &["--no-cache"]).well().id();
    let mut shell = super::opened(farm, &[&id, "work"]);
    let again = farm.build(dir.path(), &["--no-cache"]).well();
    assert_eq!(again.caches()["work"], "miss", "{:?}", again.caches());
    shell.types("exit\r");
    assert_eq!(shell.code(), 0);
}
