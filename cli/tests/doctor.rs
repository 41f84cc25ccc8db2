//! `kiln doctor` on machines, farms and workers that lack something.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use kiln_harness::faults::Clock;
use kiln_harness::guarded::{Guarded, access, certificate, local, token, well};
use kiln_harness::redis::{self, Redis};
use kiln_harness::{Farm, Ran, cannot_run, project, until};
use serde_json::Value;

/// What `kiln doctor` found.
struct Found {
    code: i32,
    report: Value,
}

impl Found {
    #[track_caller]
    fn of(ran: Ran) -> Self {
        let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let is_well = report["well"].as_bool().unwrap();
        assert_eq!(ran.code, i32::from(!is_well), "{report:#}");
        Self { code: ran.code, report }
    }

    /// A finding of a section whose title has these words.
    fn find(&self, about: &str, name: &str) -> Option<&Value> {
        let sections = self.report["sections"].as_array().unwrap().iter();
        let checks = sections.filter(|section| section["about"].as_str().unwrap().contains(about));
        checks.flat_map(|section| section["checks"].as_array().unwrap()).find(|check| check["name"] == name)
    }

    #[track_caller]
    fn check(&self, about: &str, name: &str, state: &str, words: &str) -> &Value {
        let found = self.find(about, name);
        let found = found.unwrap_or_else(|| panic!("expected `{name}` of `{about}` in {:#}", self.report));
        assert_eq!(found["state"], state, "{found:#}");
        assert!(found["found"].as_str().unwrap().contains(words), "expected `{words}` in {found:#}");
        assert!(
            !found["why"].as_str().unwrap().is_empty() && (state == "ok") == found["fix"].as_str().unwrap().is_empty(),
            "{found:#}"
        );
        found
    }
}

fn doctor(farm: &Farm, more: &[&str]) -> Found {
    Found::of(farm.kiln(&[&["doctor", "--json"], more].concat()))
}

/// `kiln doctor` without a farm, with this configuration.
fn alone(config: &Path, directory: &Path, more: &[&str]) -> Ran {
    let mut command = Command::new(kiln_harness::run::program());
    command
        .args(["doctor", "--json"])
        .args(more)
        .current_dir(directory)
        .env("KILN_CONFIG", config)
        .stdin(Stdio::null());
    for name in ["KILN_FARM", "KILN_TOKEN", "KILN_TOKEN_FILE", "KILN_CA", "KILN_CERT", "KILN_KEY"] {
        command.env_remove(name);
    }
    Ran::from(command)
}

#[test]
fn a_good_machine_and_a_good_farm_lack_nothing_that_is_needed() {
    let farm = Farm::start(&["one"]);
    let found = doctor(&farm, &["--machine"]);
    found.check("this machine", "kiln", "ok", "protocol");
    found.check("this machine", "git", "ok", "");
    found.check("steps on this machine", "kernel", "ok", "Linux ");
    found.check("steps on this machine", "namespaces", "ok", "work");
    found.check("the farm at", "connection", "ok", "answers");
    found.check("the farm at", "credentials", "ok", "accepted");
    found.check("the farm at", "clock", "ok", "the same");
    found.check("the farm at", "versions", "ok", "as this `kiln`");
    assert!(found.find("the farm's workers", "one").is_some(), "{:#}", found.report);
    assert_eq!(found.code, 0, "{:#}", found.report);
    let text = well(farm.kiln(&["doctor"]));
    assert!(text.contains("this machine\n") && text.contains("nothing that is needed is missing"), "{text}");

    farm.kill_worker("one");
    let found = until("the worker to be away", || {
        let found = doctor(&farm, &[]);
        found.find("the farm's workers", "workers").is_some().then_some(found)
    });
    let workers = found.check("the farm's workers", "workers", "missing", "none is connected");
    assert!(workers["fix"].as_str().unwrap().starts_with("kiln-worker "));
    found.check("the farm's workers", "one", "warning", "away");
}

#[test]
fn a_worker_says_what_its_machine_lacks() {
    if !nix::unistd::geteuid().is_root() {
        return cannot_run("root limits namespaces and has ids for steps");
    }
    let farm = Farm::start(&["whole"]);
    // A machine without the programs that make networks.
    let hide = "for program in pasta slirp4netns; do for directory in /usr/local/bin /usr/bin /bin; do \
                [ ! -e $directory/$program ] || mount --bind /dev/null $directory/$program; done; done; exec \"$@\"";
    farm.start_worker_behind(&["unshare", "-m", "sh", "-c", hide, "sh"], &farm.url, "without-pasta", &[], &[]);
    // A user namespace in which there can be no other.
    let limit = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    farm.start_worker_behind(&["unshare", "-Ur", "sh", "-c", limit, "sh"], &farm.url, "without-namespaces", &[], &[]);
    for name in ["without-pasta", "without-namespaces"] {
        farm.wait_for_worker(name);
    }
    let found = doctor(&farm, &["--worker", "whole"]);
    found.check("worker whole", "step networks", "ok", "");
    assert!(found.find("this machine", "git").is_none(), "expected only the worker: {:#}", found.report);

    let found = doctor(&farm, &["--worker", "without-pasta"]);
    let check = found.check("worker without-pasta", "step networks", "warning", "neither `pasta`");
    assert_eq!(check["fix"], "apt-get install passt");
    assert_eq!(found.code, 0, "expected such a worker to be of use");

    let found = doctor(&farm, &["--worker", "without-namespaces"]);
    let check = found.check("worker without-namespaces", "namespaces", "missing", "`user.max_user_namespaces` is 0");
    assert_eq!(check["fix"], "sysctl -w user.max_user_namespaces=15000");
    assert_eq!(found.code, 1);

    let found = doctor(&farm, &[]);
    let check = found.check("the farm's workers", "without-namespaces", "missing", "lacks namespaces");
    assert_eq!(check["fix"], "kiln doctor --worker without-namespaces");
    let found = doctor(&farm, &["--worker", "none"]);
    found.check("worker none", "none", "missing", "the farm has no such worker, only `");
}

#[test]
fn a_farm_that_is_not_trusted_or_does_not_know_the_caller_is_found() {
    let (guarded, other) = (Guarded::start(&[]), tempfile::tempdir().unwrap());
    let elsewhere = other.path().join("farm");
    well(local(&["farm", "init", elsewhere.to_str().unwrap(), "--host", "127.0.0.1"]));
    let ask = |access| Found::of(guarded.ran(access, &["doctor", "--json"]));
    let admin = guarded.dir().join("people/admin");
    let found = ask(access(&guarded.dir(), Some(&admin)));
    found.check("the farm at", "certificate", "ok", "valid until");
    found.check("the farm at", "credentials", "ok", "accepted");

    let found = ask(access(&elsewhere, None));
    let check = found.check("the farm at", "trust", "missing", "its certificate is");
    assert!(check["fix"].as_str().unwrap().contains("--ca FILE"), "{check:#}");
    let found = ask(access(&guarded.dir(), None));
    let check = found.check("the farm at", "credentials", "missing", "authentication required");
    assert!(check["fix"].as_str().unwrap().starts_with("kiln login https://"), "{check:#}");

    let short = guarded.make(&["token", "late", "--role", "builder", "--life", "1s"]);
    let found = until("the token to expire", || {
        let found = ask(token(&guarded.dir(), &short));
        let credentials = found.find("the farm at", "credentials").unwrap()["state"].clone();
        (credentials == "missing").then_some(found)
    });
    found.check("the farm at", "credentials", "missing", "expired");
    // Credentials of another farm.
    let stranger = certificate(&elsewhere, "ann", &["--role", "builder"]);
    let found = ask(access(&guarded.dir(), Some(&stranger)));
    found.check("the farm at", "credentials", "missing", "");
}

#[test]
fn a_coordinator_whose_clock_is_wrong_is_found() {
    if !Clock::is_installed() {
        return cannot_run("libfaketime is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::at(dir.path().join("clock"));
    let variables = clock.variables().map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let farm = Farm::with_variables(variables, &[], &[]);
    let check = |state: &str, words: &str| {
        let found = doctor(&farm, &[]);
        found.check("the farm at", "clock", state, words);
    };
    check("missing", "ahead");
    clock.jump(-10);
    check("warning", "behind");
    clock.jump(0);
    check("ok", "the same");
}

#[test]
fn a_redis_that_is_away_is_found() {
    if !redis::is_installed() {
        return cannot_run("redis-server is not installed");
    }
    let mut redis = Redis::start();
    let farm = Farm::with_redis(Some(&redis.url()), &[]);
    doctor(&farm, &[]).check("the farm at", "Redis", "ok", "in use");
    redis.kill();
    let found = until("the coordinator to miss Redis", || {
        let found = doctor(&farm, &[]);
        (found.find("the farm at", "Redis").unwrap()["state"] == "warning").then_some(found)
    });
    found.check("the farm at", "Redis", "warning", "does not respond");
}

#[test]
fn mistakes_of_the_configuration_and_a_farm_that_is_away_are_findings() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let with = |text: &str| {
        kiln_harness::write(dir.path(), "config.toml", text);
        std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Found::of(alone(&config, dir.path(), &["--farm", &format!("http://{nobody}")]))
    };
    let found = with("");
    found.check("this machine", "configuration", "ok", "config.toml");
    let check = found.check("the farm at", "connection", "missing", "cannot reach the farm");
    assert!(check["fix"].as_str().unwrap().starts_with("nc -vz 127.0.0.1 "), "{check:#}");
    // Whatever is wrong there, the command goes on.
    with("[flags]\nbuild = [\"--platfrom\", \"x\"]\n").check(
        "this machine",
        "configuration",
        "missing",
        "did you mean `--platform`?",
    );
    kiln_harness::write(dir.path(), "config.toml", "\nfrm = 1\n");
    let found = Found::of(alone(&config, dir.path(), &[]));
    found.check("this machine", "configuration", "missing", "line 2: there is no `frm`; did you mean `farm`?");
    kiln_harness::write(
        dir.path(),
        "config.toml",
        "farm = \"a\"\n[farms.a]\nurl = \"http://x\"\ntoken-command = [\"false\"]\n",
    );
    let found = Found::of(alone(&config, dir.path(), &[]));
    let check = found.check("this machine", "configuration", "missing", "the token command `false` of farm `a` failed");
    assert_eq!(check["fix"], "false");
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    kiln_harness::write(dir.path(), "config.toml", "");
    Found::of(alone(&config, dir.path(), &[])).check(
        "this machine",
        "configuration",
        "warning",
        "can be read or written by others",
    );
}

#[test]
fn registries_that_a_project_names_are_asked() {
    let served = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = served.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in served.incoming().flatten() {
            use std::io::{Read, Write};
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let kiln = format!("[steps.a]\nrun = \"true\"\nimage = \"127.0.0.1:{port}/go:1\"\n");
    let dockerfile = format!("FROM 127.0.0.1:{nobody}/base AS one\nFROM one\n");
    let dir = project(&[("kiln.toml", &kiln), ("Dockerfile", &dockerfile)]);
    let farm = Farm::shared();
    let found = doctor(farm, &[dir.path().to_str().unwrap()]);
    found.check("this machine", &format!("registry 127.0.0.1:{port}"), "ok", "answers 401");
    let name = format!("registry 127.0.0.1:{nobody}");
    found.check("this machine", &name, "warning", "the farm's coordinator fetches");
    // Without a farm this machine does.
    let found = Found::of(alone(Path::new("/nowhere/config.toml"), dir.path(), &[]));
    found.check("this machine", &name, "missing", "");
}
