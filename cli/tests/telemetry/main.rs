//! Real processes report what they do to a collector, and in logs.

#![allow(clippy::unwrap_used)]

mod collector;
mod metrics;

use std::process::Command;

use collector::{Certificates, Collector, Span};
use kiln_harness::{Farm, project, until};
use serde_json::Value;

const HUSH: &str = "hush-4711-nobody-may-see-this";

/// A farm of one worker whose processes send their spans to this collector.
fn farm(collector: &Collector) -> Farm {
    let variables = collector.variables();
    let farm = Farm::with_variables(variables.clone(), &[], &[]);
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // A step waits for this test on the machine's loopback.
    farm.start_worker_in(&farm.url, "one", &["--network-isolation", "off"], &variables);
    farm.wait_for_worker("one");
    farm
}

fn traced(mut command: Command, collector: &Collector) -> Command {
    command.envs(collector.variables());
    command
}

/// Two steps, the second of which prints and contains values that no span may contain.
fn two_steps() -> tempfile::TempDir {
    project(&[
        ("in.txt", "input"),
        (
            "kiln.toml",
            &format!(
                r#"
name = "traced"
[steps.deps]
inputs = ["in.txt"]
run = "cp in.txt layer"
outputs = ["layer"]
[steps.compile]
needs = ["deps"]
env = {{ TOKEN = "{HUSH}" }}
run = "cp layer made; echo $TOKEN {HUSH}"
outputs = ["made"]
[artifacts.traced]
from = "compile"
files = ["made"]
kind = "archive"
"#
            ),
        ),
    ])
}

/// The span of this name for which `is_it` is true, once it arrived.
fn wait_for(collector: &Collector, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
    until(what, || collector.spans().into_iter().find(&is_it))
}

fn called(process: &'static str, name: &'static str) -> impl Fn(&Span) -> bool {
    move |span| span.process == process && span.name == name
}

#[test]
fn a_build_is_one_trace_from_the_command_through_coordinator_and_worker() {
    let collector = Collector::start();
    let farm = farm(&collector);
    let dir = two_steps();
    let built =
        kiln_harness::Built(kiln_harness::Ran::from(traced(farm.build_command(dir.path(), &[]), &collector))).well();

    let root = wait_for(&collector, "the command's own span", called("kiln", "kiln build"));
    assert_eq!(root.parent, "", "expected the command to start the trace");
    let submit = wait_for(&collector, "the submission", called("kiln", "submit"));
    assert_eq!(submit.parent, root.id);
    let call = wait_for(&collector, "the call", called("kiln-coordinator", "kiln.v1.Builds/Submit"));
    assert_eq!(call.parent, submit.id, "expected the call under the caller's span");
    let plan = wait_for(&collector, "the plan", called("kiln-coordinator", "plan"));
    assert_eq!(plan.parent, call.id);
    let build = wait_for(&collector, "the build", called("kiln-coordinator", "build"));
    assert_eq!(build.parent, call.id);
    assert_eq!(build.attributes["build"], built.id());
    assert_eq!(build.attributes["status"], "SUCCEEDED");
    for name in ["deps", "compile"] {
        let step = wait_for(&collector, "the step", |span| span.name == "step" && span.attributes["step"] == name);
        assert_eq!((&step.parent, &*step.attributes["cache"]), (&build.id, "MISS"));
        for (process, below) in [
            ("kiln-coordinator", "lower"),
            ("kiln-coordinator", "cache lookup"),
            ("kiln-coordinator", "queue"),
            ("kiln-worker", "lease"),
        ] {
            wait_for(&collector, &format!("`{below}` of step `{name}`"), |span| {
                called(process, below)(span) && span.parent == step.id
            });
        }
        let lease = wait_for(&collector, "the lease", |span| span.name == "lease" && span.parent == step.id);
        assert!(step.attributes["action"].contains(&lease.attributes["action"]), "{step:?} {lease:?}");
        for below in ["fetch inputs", "execute", "upload outputs"] {
            wait_for(&collector, &format!("`{below}` of step `{name}`"), |span| {
                called("kiln-worker", below)(span) && span.parent == lease.id
            });
        }
    }
    wait_for(&collector, "the artifact", |span| {
        called("kiln-coordinator", "artifact")(span) && span.parent == build.id
    });
    wait_for(&collector, "the artifact's way here", called("kiln", "download"));
    let fetches: Vec<Span> = collector.spans().into_iter().filter(|span| span.name == "fetch inputs").collect();
    wait_for(&collector, "the coordinator's part in a worker's fetch", |span| {
        span.process == "kiln-coordinator" && fetches.iter().any(|fetch| fetch.id == span.parent)
    });
    let strays: Vec<Span> = collector.spans().into_iter().filter(|span| span.trace != root.trace).collect();
    assert!(strays.is_empty(), "expected one trace, found also {strays:#?}");
    assert!(!collector.all().contains(HUSH), "expected no variable, argument or output of a step in any span");
}

#[test]
fn a_build_that_is_taken_up_again_stays_in_its_trace_and_its_caller_s() {
    let collector = Collector::start();
    let farm = farm(&collector);
    let gate = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    let wait = format!("socket.create_connection(('127.0.0.1', {port})).recv(1)");
    let toml = format!(
        "name = \"held\"\n[steps.hold]\nnetwork = true\ninputs = [\"in.txt\"]\noutputs = [\"out\"]\n\
         run = \"\"\"python3 -c \"import socket; {wait}\"; cp in.txt out\"\"\"\n\
         [artifacts.held]\nfrom = \"hold\"\nfiles = [\"out\"]\nkind = \"archive\"\n"
    );
    let dir = project(&[("in.txt", "held"), ("kiln.toml", &toml)]);
    let mut command = traced(farm.build_command(dir.path(), &[]), &collector);
    let callers = "0af7651916cd43dd8448eb211c80319c";
    command.env("TRACEPARENT", format!("00-{callers}-b7ad6b7169203331-01"));
    let mut build = kiln_harness::Running::start(command);
    build.started("hold");
    let (held, _) = gate.accept().unwrap();
    let call = wait_for(&collector, "the call", called("kiln-coordinator", "kiln.v1.Builds/Submit"));
    farm.restart_coordinator();
    drop(held);
    build.end().well();
    let resumed = wait_for(&collector, "the build of the second coordinator", called("kiln-coordinator", "build"));
    assert_eq!(resumed.attributes["resumed"], "true");
    assert_eq!((&*resumed.trace, &resumed.parent), (callers, &call.id));
    let root = wait_for(&collector, "the command's own span", called("kiln", "kiln build"));
    assert_eq!((&*root.trace, &*root.parent), (callers, "b7ad6b7169203331"), "expected the caller's trace");
    let lease = wait_for(&collector, "the lease", called("kiln-worker", "lease"));
    assert_eq!(lease.trace, callers);
}

#[test]
fn a_collector_that_is_away_costs_a_build_nothing_but_a_line_of_the_log() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{nobody}")), ("OTEL_BSP_SCHEDULE_DELAY", "20".into())];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let farm = Farm::with_variables(variables.clone().into(), &[], &["one"]);
    let dir = two_steps();
    let mut command = farm.build_command(dir.path(), &[]);
    kiln_harness::Built(kiln_harness::Ran::from({
        command.envs(variables);
        command
    }))
    .well();
    let complaint = "cannot export traces";
    until("the coordinator to say so", || farm.log("coordinator").contains(complaint).then_some(()));
    farm.build(dir.path(), &[]).well();
    assert_eq!(farm.log("coordinator").matches(complaint).count(), 1, "{}", farm.log("coordinator"));
}

#[test]
fn spans_reach_a_collector_over_tls_from_whoever_trusts_it_and_has_a_certificate() {
    let certificates = Certificates::new();
    let collector = Collector::over_tls(&certificates);
    let pairs = |more: &[(&str, String)]| -> Vec<(String, String)> {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        collector.variables().into_iter().chain(more).collect()
    };
    let authority = certificates.path("ca.pem");
    let own = [
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificates.path("client.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.path("client.key")),
    ];
    // The coordinator trusts the authority that OpenTelemetry's variable names, and the worker that of the whole system.
    let farm = Farm::with_variables(
        pairs(&[&own[..], &[("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.clone())]].concat()),
        &[],
        &[],
    );
    let of_worker = pairs(&[&own[..], &[("SSL_CERT_FILE", authority.clone())]].concat());
    let of_worker: Vec<(&str, &str)> = of_worker.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    farm.start_worker_in(&farm.url, "one", &[], &of_worker);
    farm.wait_for_worker("one");
    let dir = two_steps();
    let mut command = farm.build_command(dir.path(), &[]);
    // Only a call that belongs to a trace has spans.
    command.env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    command.envs(pairs(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", authority)]));
    let built = kiln_harness::Built(kiln_harness::Ran::from(command)).well();
    let build = wait_for(&collector, "the coordinator's span", called("kiln-coordinator", "build"));
    assert_eq!(build.attributes["build"], built.id());
    wait_for(&collector, "the worker's span", called("kiln-worker", "lease"));
    let strangers = collector.spans().iter().filter(|span| span.process == "kiln").count();
    assert_eq!(strangers, 0, "expected nothing of whoever has no certificate");
}

#[test]
fn a_collector_that_is_not_trusted_costs_spans_and_no_build() {
    let certificates = Certificates::new();
    let collector = Collector::over_tls(&certificates);
    let farm = Farm::with_variables(collector.variables(), &[], &["one"]);
    let dir = two_steps();
    let mut command = farm.build_command(dir.path(), &[]);
    command.env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    kiln_harness::Built(kiln_harness::Ran::from(command)).well();
    until("the coordinator to say so", || farm.log("coordinator").contains("cannot export traces").then_some(()));
    assert!(collector.spans().is_empty());
}

#[test]
fn files_for_tls_that_cannot_be_used_are_refused_by_servers_and_no_matter_to_a_command() {
    let dir = two_steps();
    for (variable, value, words) in [
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/nowhere.pem",
            "`/nowhere.pem`, which `OTEL_EXPORTER_OTLP_CERTIFICATE` names",
        ),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "kiln.toml", "`OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` is not"),
    ] {
        let kiln = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
            command.args(arguments).current_dir(dir.path()).env_remove("KILN_FARM").env_remove("KILN_LOG");
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1").env(variable, value);
            kiln_harness::Ran::from(command)
        };
        let plan = kiln(&["plan"]);
        assert!(plan.code == 0 && plan.err.contains(words) && plan.err.contains("not traced"), "{plan:?}");
        let server = kiln(&["coordinator", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
        assert!(server.code == 2 && server.err.contains(words), "{server:?}");
    }
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused_by_servers_and_no_matter_to_a_command() {
    let dir = two_steps();
    let kiln = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(arguments).current_dir(dir.path()).env_remove("KILN_FARM").env_remove("KILN_LOG");
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        kiln_harness::Ran::from(command)
    };
    let plan = kiln(&["plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    assert!(plan.err.contains("`http/protobuf`") && plan.err.contains("not traced"), "{plan:?}");
    let server = kiln(&["coordinator", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
    assert_eq!(server.code, 2, "{server:?}");
    assert!(server.err.contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{server:?}");
}

#[test]
fn json_log_lines_name_the_build_the_action_and_the_lease() {
    let json = [("KILN_LOG_FORMAT", "json"), ("KILN_LOG", "info,kiln_worker=debug")];
    let variables = json.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let farm = Farm::with_variables(variables.into(), &[], &[]);
    farm.start_worker_in(&farm.url, "one", &[], &json);
    farm.wait_for_worker("one");
    let built = farm.build(two_steps().path(), &[]).well();
    let lines = |name: &str| -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("expected JSON, found: {line}"));
        farm.log(name).lines().map(parse).collect()
    };
    let within = |line: &Value, field: &str| -> Option<Value> {
        line["spans"].as_array()?.iter().find_map(|span| span.get(field).cloned())
    };
    let ended = lines("coordinator").into_iter().find(|line| line["message"] == "build ended").unwrap();
    assert_eq!(within(&ended, "build").unwrap(), built.id(), "{ended}");
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    let finished = built.of_type("step_finished");
    let actions: Vec<&str> = finished.iter().filter_map(|step| step["action"].as_str()).collect();
    let lease = lines("one").into_iter().find(|line| line["message"] == "lease ended").unwrap();
    assert!(within(&lease, "lease").is_some_and(|lease| lease.is_u64()), "{lease}");
    let action = within(&lease, "action").unwrap();
    let action = action.as_str().unwrap();
    assert!(action.len() == 64 && actions.iter().any(|known| known.contains(action)), "{lease}");
}
