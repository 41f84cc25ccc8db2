//! A farm is reached at any of several addresses, of which others are dead, silent, or gone in the middle of a build. Real processes.

#![allow(clippy::unwrap_used)]

use kiln_harness::guarded::{local, refused};
use kiln_harness::proxy::Proxy;
use kiln_harness::{Built, Farm, Ran, Running, black_hole, cannot_run, free_url, project};
use serde_json::Value;

/// `kiln` that knows these addresses.
fn kiln(farm: &Farm, urls: &[&str], arguments: &[&str]) -> std::process::Command {
    let mut command = farm.command(arguments);
    command.env("KILN_FARM", urls.join(","));
    command
}

fn workers(farm: &Farm, urls: &[&str]) -> Vec<Value> {
    let ran = Ran::from(kiln(farm, urls, &["workers", "--json"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

/// A step that says that it has begun, also in the file `count`, and ends when the file `open` exists.
fn until_opened(gate: &std::path::Path) -> tempfile::TempDir {
    let text = format!(
        "name = \"gated\"\n[steps.wait]\nrun = \"echo begun | tee -a {count}; until [ -e {gate} ]; do sleep 0.1; done; cp big out\"\n\
         inputs = [\"big\"]\noutputs = [\"out\"]\n[artifacts.out]\nfrom = \"wait\"\nfiles = [\"out\"]\nkind = \"archive\"\n",
        gate = gate.join("open").display(),
        count = gate.join("count").display(),
    );
    let big: String = (0..300_000).map(|line| format!("line {line}\n")).collect();
    project(&[("kiln.toml", &text), ("big", &big)])
}

#[test]
fn a_build_goes_on_at_another_address_when_its_coordinator_has_moved_there() {
    let mut farm = Farm::start(&[]);
    let (before, after) = (farm.url.clone(), free_url());
    let urls = [black_hole(), before, after.clone(), free_url()];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    // Without a sandbox, a step sees the file that it waits for.
    farm.start_worker_by(&urls.join(","), "one", &["--sandbox", "off"]);
    farm.wait_for_worker("one");
    let gate = tempfile::tempdir().unwrap();
    let dir = until_opened(gate.path());
    let mut command = kiln(&farm, &urls, &["build", "--progress", "json"]);
    command.current_dir(dir.path());
    let mut build = Running::start(command);
    build.until("the step to print", |event| event["type"] == "log" && event.to_string().contains("begun"));
    farm.move_coordinator(&after);
    std::fs::write(gate.path().join("open"), "").unwrap();
    build.end().well();
    let count = std::fs::read_to_string(gate.path().join("count")).unwrap();
    assert_eq!(count, "begun\n", "expected one run");
    assert_eq!(workers(&farm, &urls)[0]["worker"], "one");
    let registered: Vec<String> =
        farm.log("one").lines().filter(|line| line.contains("registered")).map(str::to_owned).collect();
    assert!(
        registered.len() == 2 && registered[1].contains(&after),
        "expected the worker to have moved along: {registered:?}"
    );
}

#[test]
fn a_coordinator_that_falls_silent_is_left_in_the_middle_of_a_build() {
    let farm = Farm::start(&[]);
    // To clients and workers, two coordinators: one of them is gone without a word, and no connection to it ends.
    let proxy = Proxy::to(&farm.url);
    let urls = [proxy.url.as_str(), &farm.url];
    farm.start_worker_by(&urls.join(","), "one", &["--sandbox", "off"]);
    farm.wait_for_worker("one");
    let gate = tempfile::tempdir().unwrap();
    let dir = until_opened(gate.path());
    let mut command = kiln(&farm, &urls, &["build", "--progress", "json"]);
    command.current_dir(dir.path());
    let mut build = Running::start(command);
    build.until("the step to print", |event| event["type"] == "log" && event.to_string().contains("begun"));
    proxy.hold();
    std::fs::write(gate.path().join("open"), "").unwrap();
    build.end().well();
    assert_eq!(std::fs::read_to_string(gate.path().join("count")).unwrap(), "begun\n", "expected one run");
}

#[test]
fn an_upload_goes_on_when_the_connection_breaks_in_its_middle() {
    let farm = Farm::start(&["one"]);
    let proxy = Proxy::to(&farm.url);
    let text = "name = \"large\"\n[steps.make]\nrun = \"cp big out\"\ninputs = [\"big\"]\noutputs = [\"out\"]\n\
                [artifacts.out]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let big: String = (0..300_000).map(|line| format!("line {line} of {}\n", std::process::id())).collect();
    let dir = project(&[("kiln.toml", text), ("big", &big)]);
    proxy.break_after(1 << 20);
    let mut command = kiln(&farm, &[&proxy.url, &farm.url], &["build", "--progress", "json"]);
    command.current_dir(dir.path());
    Built(Ran::from(command)).well();
    assert!(!proxy.is_to_break(), "expected the connection to have broken");
}

#[test]
fn every_command_reaches_the_farm_wherever_it_is_in_the_list() {
    let farm = Farm::start(&["one"]);
    let (silent, dead) = (black_hole(), free_url());
    for urls in [[&silent, &dead, &farm.url], [&farm.url, &dead, &silent], [&dead, &farm.url, &silent]] {
        let urls = urls.map(String::as_str);
        assert_eq!(workers(&farm, &urls).len(), 1);
        for command in [&["status"][..], &["builds"], &["cache", "list"]] {
            let ran = Ran::from(kiln(&farm, &urls, command));
            assert_eq!(ran.code, 0, "{urls:?}: {ran:?}");
        }
    }
    let ran = Ran::from(kiln(&farm, &[&silent, &dead], &["--lost-after", "1", "status"]));
    refused(&ran, 3, "no coordinator of the farm answers");
    assert!(ran.err.contains(&silent) && ran.err.contains(&dead), "{ran:?}");
}

#[test]
fn pages_and_caches_of_tools_are_those_of_the_coordinator_that_answers() {
    let (pages, caches) = (free_url(), free_url());
    let at = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
    let farm = Farm::with(&["--web-listen", &at(&pages), "--cache-listen", &at(&caches)], &[]);
    // Nobody is at the other's host.
    let other = farm.url.replace("127.0.0.1", "127.0.0.9");
    for urls in [[other.as_str(), &farm.url], [&farm.url, &other]] {
        let ran = Ran::from(kiln(&farm, &urls, &["web", "--print"]));
        assert!(ran.code == 0 && ran.out.starts_with(&format!("{pages}/")), "{ran:?}");
        let ran = Ran::from(kiln(&farm, &urls, &["cache", "env", "bazel"]));
        assert!(ran.code == 0 && ran.out.contains(&caches) && !ran.out.contains("127.0.0.9"), "{ran:?}");
        let ran = Ran::from(kiln(&farm, &urls, &["cache", "env", "go"]));
        let both = format!("{caches}/cache/go,{}/cache/go", caches.replace("127.0.0.1", "127.0.0.9"));
        assert!(ran.code == 0 && ran.out.contains(&both), "{ran:?}");
    }
}

#[test]
fn login_keeps_all_addresses_of_a_farm() {
    let farm = Farm::start(&["one"]);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let urls = format!("{},{}", free_url(), farm.url);
    let kiln = |arguments: &[&str]| {
        let mut command = farm.command(arguments);
        command.env_remove("KILN_FARM").env("KILN_CONFIG", &config).stdin(std::process::Stdio::null());
        Ran::from(command)
    };
    let ran = kiln(&["login", &urls, "--name", "team", "--no-token"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(std::fs::read_to_string(&config).unwrap().contains(&format!("url = \"{urls}\"")));
    let ran = kiln(&["workers", "--json"]);
    assert!(ran.code == 0 && ran.out.contains("\"one\""), "{ran:?}");
    refused(&kiln(&["login", &format!("{urls},"), "--name", "other", "--no-token"]), 2, "an address is missing");
}

#[test]
fn doctor_shows_the_state_of_each_address() {
    let farm = Farm::start(&["one"]);
    let (silent, dead) = (black_hole(), free_url());
    let ran = Ran::from(kiln(&farm, &[&dead, &farm.url, &silent], &["doctor", "--json"]));
    let sections: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let text = sections.to_string();
    let checks: Vec<&Value> = find(&sections, "coordinator");
    let states: Vec<&str> = checks.iter().map(|check| check["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["warning", "ok", "warning"], "{text}");
    for (check, (url, words)) in
        checks.iter().zip([(&dead, "refused"), (&farm.url, "answers"), (&silent, "does not answer")])
    {
        let found = check["found"].as_str().unwrap();
        assert!(found.contains(url.as_str()) && found.contains(words), "expected `{words}` of `{url}` in: {found}");
    }
    let ran = Ran::from(kiln(&farm, &[&dead, &silent], &["doctor", "--json"]));
    assert_eq!(ran.code, 1, "{ran:?}");
    let sections: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(find(&sections, "coordinator").iter().all(|check| check["state"] == "missing"), "{sections}");
}

/// All checks of this name, wherever they are.
fn find<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(fields) if fields.get("name").is_some_and(|found| found == name) => vec![value],
        Value::Object(fields) => fields.values().flat_map(|value| find(value, name)).collect(),
        Value::Array(all) => all.iter().flat_map(|value| find(value, name)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_list_that_makes_no_sense_is_refused_with_the_reason() {
    for (urls, words) in [
        ("http://127.0.0.1:1,", "an address is missing"),
        ("http://127.0.0.1:1,,http://127.0.0.1:2", "an address is missing"),
        ("http://127.0.0.1:1,https://127.0.0.1:2", "mixes TLS and plain HTTP"),
        ("http://127.0.0.1:1,http://127.0.0.1:1", "is twice in"),
    ] {
        refused(&local(&["--farm", urls, "status"]), 2, words);
        let state = tempfile::tempdir().unwrap();
        let arguments =
            ["worker", "--coordinator", urls, "--name", "one", "--state-dir", state.path().to_str().unwrap()];
        refused(&local(&arguments), 3, words);
    }
}

#[test]
fn a_name_with_several_addresses_stands_for_several_coordinators() {
    // A name service of this test's own: in a mount namespace, /etc/hosts is another file.
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.1 farm.test\n127.0.0.2 farm.test\n").unwrap();
    let script = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
    let before = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script];
    let tried = std::process::Command::new(before[0]).args(&before[1..]).arg("true").output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        return cannot_run(&format!("a mount namespace with a file of its own at /etc/hosts: {tried:?}"));
    }
    let mut farm = Farm::start(&[]);
    let port = farm.url.rsplit_once(':').unwrap().1.to_owned();
    // Nobody listens at the first of both.
    farm.move_coordinator(&format!("http://127.0.0.2:{port}"));
    farm.wait_until_up();
    let named = format!("http://farm.test:{port}");
    let kiln = |arguments: &[&str]| {
        let mut command = std::process::Command::new(before[0]);
        command.args(&before[1..]).arg(kiln_harness::run::program()).args(arguments);
        command.env("KILN_FARM", &named).env("XDG_CACHE_HOME", dir.path().join("cache"));
        Ran::from(command)
    };
    let ran = kiln(&["status"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = kiln(&["doctor", "--json"]);
    let sections: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let states: Vec<String> = find(&sections, "coordinator")
        .iter()
        .map(|check| format!("{}: {}", check["found"].as_str().unwrap(), check["state"].as_str().unwrap()))
        .collect();
    assert!(states.len() == 2 && states[0].contains("127.0.0.1") && states[0].ends_with("warning"), "{states:?}");
    assert!(states[1].contains("127.0.0.2") && states[1].ends_with("ok"), "{states:?}");
}
