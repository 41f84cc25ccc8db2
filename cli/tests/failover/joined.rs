//! Members that one coordinator knows are the farm's: whoever is asked lists all of them, and a worker joins through whichever it reaches.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use kiln_harness::replicas::{KEEPS, Replicas};
use kiln_harness::{Ran, until};
use kiln_proto::v1;
use nix::sys::signal::Signal;
use serde_json::Value;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

fn kiln(arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(kiln_harness::run::program());
    command.args(arguments).env("KILN_CONFIG", "/nowhere/config.toml").env_remove("KILN_FARM");
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.trim().to_owned()
}

/// The names of all certificates and tokens that a coordinator lists.
fn listed(farm: &Replicas, name: &str) -> BTreeSet<String> {
    let ran = farm.kiln_at(name, &["farm", "list", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let rows: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    let held = rows.iter().filter(|row| row["kind"] != "worker");
    held.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

/// Tries to join from this address, with a token that nobody issued.
async fn join_from(address: IpAddr, url: &str, ca: &Path) -> tonic::Status {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(std::fs::read(ca).unwrap()));
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap().tls_config(tls).unwrap();
    let channel = endpoint.local_address(Some(address)).connect().await.unwrap();
    let request = v1::JoinRequest { token: "kiln_unknown".into(), worker: "stray".into(), ..Default::default() };
    let mut members = v1::membership_client::MembershipClient::new(channel);
    members.join(request).await.expect_err("expected the token to be refused")
}

#[test]
fn members_are_those_of_all_coordinators_whoever_is_asked_and_whichever_they_joined_through() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    kiln(&["farm", "init", &at("ada"), "--host", "127.0.0.1"]);
    let root = kiln(&["farm", "token", "root", "--role", "farm-admin", "--farm-dir", &at("ada")]);
    let join = kiln(&["farm", "token", "workers", "--farm-dir", &at("ada"), "--join", "--uses", "1"]);
    let copied = std::process::Command::new("cp").args(["-a", &at("ada"), &at("ben")]).status().unwrap();
    assert!(copied.success());
    // From here on, the copies differ.
    for (of, name) in [("ada", "ann"), ("ben", "bob")] {
        kiln(&["farm", "token", name, "--role", "builder", "--farm-dir", &at(of)]);
    }
    let access = vec![
        ("KILN_TOKEN".to_owned(), root),
        ("KILN_CA".to_owned(), home.path().join("ada/ca.pem").display().to_string()),
    ];
    let (dirs, logs) = (at("{name}"), at("{name}.jsonl"));
    let more = ["--farm-dir", &dirs, "--audit-log", &logs];
    let Some(farm) = Replicas::with(&["ada", "ben"], &[], &KEEPS, &more, "https", access) else { return };
    let leader = farm.leader().unwrap();
    let other = farm.names().into_iter().find(|name| *name != leader).unwrap();
    farm.start_worker_at("one", &farm.url_of(&other), &["--join", &join]);
    farm.wait_for_worker("one");
    let all = ["ann", "bob", "one", "root", "workers"].map(str::to_owned).into();
    for name in [&leader, &other] {
        until("all to be listed", || (listed(&farm, name) == all).then_some(()));
    }
    // A name that only the other one knows can be revoked, which a mistyped one cannot.
    let theirs = if leader == "ada" { "bob" } else { "ann" };
    assert_eq!(farm.kiln_at(&leader, &["farm", "revoke", theirs]).code, 0);
    assert_ne!(farm.kiln_at(&leader, &["farm", "revoke", "nobody"]).code, 0);
    // The leader writes down from where somebody came to the other one.
    let from: IpAddr = [127, 0, 0, 77].into();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(join_from(from, &farm.url_of(&other), &home.path().join("ada/ca.pem")));
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused:?}");
    let log = std::fs::read_to_string(at(&format!("{leader}.jsonl"))).unwrap();
    let joins = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let joins: Vec<Value> = joins.filter(|line| line["call"] == "/kiln.v1.Membership/Join").collect();
    assert_eq!(joins.len(), 2, "expected the worker's and the stranger's: {joins:?}");
    assert_eq!((&joins[0]["outcome"], &joins[0]["subject"]), (&"OK".into(), &"worker one".into()), "{joins:?}");
    assert!(joins[1]["address"].as_str().unwrap().starts_with("127.0.0.77:"), "{joins:?}");
    let log = std::fs::read_to_string(at(&format!("{other}.jsonl"))).unwrap_or_default();
    assert!(!log.contains("Membership/Join"), "expected whoever answered to have written it down: {log}");
    // Whoever does not answer is named.
    farm.signal_coordinator(&other, Signal::SIGSTOP);
    let listed = farm.kiln_at(&leader, &["farm", "list"]);
    farm.signal_coordinator(&other, Signal::SIGCONT);
    let words = format!("`{}` does not answer", farm.url_of(&other));
    assert!(listed.code == 0 && listed.err.contains(&words), "expected `{words}` in {listed:?}");
}
