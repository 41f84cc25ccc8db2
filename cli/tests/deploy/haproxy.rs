//! The configuration of HAProxy, run by HAProxy itself in front of a coordinator that moves from one of its servers to the other.

use std::process::Command;

use kiln_harness::{Farm, Lasting, Ran, Running, cannot_run, http, project, until};

use crate::{deploy, printed};

/// Where Debian has it.
const PROGRAM: &str = "/usr/sbin/haproxy";

fn free() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// HAProxy with the file's text, in which these words are replaced.
fn start(dir: &std::path::Path, replaced: &[(&str, &str)]) -> Option<Lasting> {
    let mut text = std::fs::read_to_string(deploy().join("haproxy/haproxy.cfg")).unwrap();
    for (from, to) in replaced {
        assert!(text.contains(from), "expected `{from}` in haproxy.cfg");
        text = text.replace(from, to);
    }
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    printed(PROGRAM, &["-c", "-f", file])?;
    let mut command = Command::new(PROGRAM);
    command.args(["-db", "-f", file]);
    Some(Lasting::start(command))
}

#[test]
fn haproxy_leads_callers_to_the_coordinator_that_is_ready() {
    if !std::path::Path::new(PROGRAM).exists() {
        return cannot_run("haproxy");
    }
    // One coordinator with its data, which is first at one of both servers' addresses and then at the other's.
    let (port, metrics) = (free(), free());
    let at = |host: &str| format!("http://{host}:{port}");
    let mut farm = Farm::with(&["--metrics-listen", &format!("127.0.0.1:{metrics}")], &[]);
    farm.move_coordinator(&at("127.0.0.1"));
    let dir = tempfile::tempdir().unwrap();
    let (ports, checks, balanced) = (format!(":{port}"), format!("port {metrics}"), at("127.0.0.3"));
    let replaced = [
        ("bind :8980", &*format!("bind 127.0.0.3:{port}")),
        ("coordinator-a.example", "127.0.0.1"),
        ("coordinator-b.example", "127.0.0.2"),
        (":8980", &ports),
        ("port 9480", &checks),
    ];
    let Some(_haproxy) = start(dir.path(), &replaced) else { return };
    let kiln = |farm: &Farm, arguments: &[&str]| {
        let mut command = farm.command(arguments);
        command.env("KILN_FARM", &balanced);
        command
    };
    until("the farm to be reached", || (Ran::from(kiln(&farm, &["status"])).code == 0).then_some(()));
    farm.start_worker_by(&balanced, "one", &["--sandbox", "off"]);
    let gate = tempfile::tempdir().unwrap();
    let text = format!(
        "name = \"gated\"\n[steps.wait]\nrun = \"echo begun; until [ -e {}/open ]; do sleep 0.1; done; echo made > out\"\n\
         outputs = [\"out\"]\n[artifacts.out]\nfrom = \"wait\"\nfiles = [\"out\"]\nkind = \"archive\"\n",
        gate.path().display()
    );
    let source = project(&[("kiln.toml", &text)]);
    let mut command = kiln(&farm, &["build", "--progress", "json"]);
    command.current_dir(source.path());
    let mut build = Running::start(command);
    build.until("the step to print", |event| event["type"] == "log" && event.to_string().contains("begun"));
    farm.move_coordinator(&at("127.0.0.2"));
    std::fs::write(gate.path().join("open"), "").unwrap();
    build.end().well();
    assert_eq!(http::get(&format!("127.0.0.2:{metrics}"), "/readyz").0, 200);
}
