//! A farm that authenticates its callers: certificates, tokens, roles and revocations.

#![allow(clippy::unwrap_used)]

use kiln_harness::guarded::{Guarded, access, certificate, local, refused, token, well};
use kiln_harness::{Ran, Running, project, until};
use kiln_proto::channel::{self, Access};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::{Blob, Client};

const PROJECT: &str = r#"
name = "hello"
[steps.make]
run = "echo made > out"
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#;

const WAITS: &str = r#"
name = "waits"
[steps.wait]
run = "echo begun; until [ -e /nowhere ]; do sleep 0.1; done"
outputs = ["out"]
cache = false
[artifacts.out]
from = "wait"
files = ["out"]
kind = "archive"
"#;

#[test]
fn people_build_with_a_certificate_or_a_token_and_a_worker_joins_by_a_token() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let dir = project(&[("kiln.toml", PROJECT)]);
    let build = ["build", dir.path().to_str().unwrap()];
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder"]);
    well(guarded.ran(access(&guarded.dir(), Some(&ann)), &build));
    let ci = guarded.make(&["token", "ci", "--role", "builder"]);
    // It is valid from the moment of its creation.
    well(guarded.ran(token(&guarded.dir(), &ci), &build));
    let file = guarded.dir().join("token-of-ci");
    std::fs::write(&file, format!("{ci}\n")).unwrap();
    let mut by_file = access(&guarded.dir(), None);
    by_file.push(("KILN_TOKEN_FILE".to_owned(), file.display().to_string()));
    well(guarded.ran(by_file, &build));
    let kept = std::fs::read_to_string(guarded.dir().join("tokens.toml")).unwrap();
    assert!(!kept.contains(&ci), "expected only a hash of the token to be kept");
    // The join token is needed only once: the worker reconnects without it.
    guarded.farm.kill_worker("one");
    guarded.farm.start_worker_in(&guarded.farm.url, "one", &[], &[]);
    guarded.farm.wait_for_worker("one");
}

#[test]
fn people_trust_a_certificate_of_another_authority_and_workers_join_by_the_farms_own() {
    let dir = kiln_harness::caretaker::directory();
    let (farm_dir, public) = (dir.path().join("farm"), dir.path().join("public"));
    let init = |at: &std::path::Path, host: &str| {
        well(local(&["farm", "init", at.to_str().unwrap(), "--host", host, "--uses", "unlimited"]))
    };
    let join = init(&farm_dir, "localhost");
    init(&public, "127.0.0.1");
    let admin = certificate(&farm_dir, "admin", &["--role", "admin", "--role", "farm-admin"]);
    let mut people = access(&farm_dir, Some(&admin));
    people[0].1 = public.join("ca.pem").display().to_string();
    let paths = [&farm_dir, &public.join("coordinator.pem"), &public.join("coordinator.key")]
        .map(|path| path.display().to_string());
    let arguments = ["--farm-dir", &paths[0], "--tls-cert", &paths[1], "--tls-key", &paths[2]];
    let farm = kiln_harness::Farm::bare(dir, "https", Vec::new(), &arguments, people);
    farm.wait_until_up();
    // Its token names the farm's authority, which it would not find behind the other certificate.
    let url = farm.url.replace("127.0.0.1", "localhost");
    farm.start_worker_in(&url, "one", &["--join", &join], &[]);
    farm.wait_for_worker("one");
    let project = project(&[("kiln.toml", PROJECT)]);
    well(farm.kiln(&["build", project.path().to_str().unwrap()]));
    // Whoever trusts the farm's authority only is shown its certificate under its own name, and not under the other.
    let mut own = farm.command(&["workers"]);
    own.env("KILN_CA", farm_dir.join("ca.pem"));
    refused(&Ran::from(own), 2, "untrusted authority");
    let mut own = farm.command(&["workers"]);
    own.env("KILN_CA", farm_dir.join("ca.pem")).env("KILN_FARM", &url);
    well(Ran::from(own));
}

#[test]
fn outsiders_are_refused_each_with_its_reason() {
    let guarded = Guarded::start(&[]);
    let other = tempfile::tempdir().unwrap();
    let other = other.path().join("farm");
    well(local(&["farm", "init", other.to_str().unwrap(), "--host", "127.0.0.1"]));
    let look = ["workers"];
    let (dir, ca) = (guarded.dir(), |access: Vec<(String, String)>| access);

    refused(&guarded.ran(access(&dir, None), &look), 2, "authentication required");
    let stranger = certificate(&other, "ann", &["--role", "admin"]);
    let mut strangers = access(&dir, None);
    strangers.extend(access(&other, Some(&stranger)).into_iter().skip(1));
    refused(&guarded.ran(strangers, &look), 2, "is not signed by the farm");
    let short = certificate(&dir, "brief", &["--role", "admin", "--life", "1s"]);
    until("a certificate of one second to expire", || {
        let ran = guarded.ran(access(&dir, Some(&short)), &look);
        (ran.code != 0).then_some(ran)
    });
    refused(&guarded.ran(access(&dir, Some(&short)), &look), 2, "has expired");

    refused(&guarded.ran(token(&dir, "kiln_AAAA"), &look), 2, "unknown token");
    let brief = guarded.make(&["token", "brief", "--role", "builder", "--life", "0s"]);
    refused(&guarded.ran(token(&dir, &brief), &look), 2, "has expired");
    let join = guarded.join.rsplit_once('.').unwrap().1;
    refused(&guarded.ran(token(&dir, join), &look), 2, "is a join token for workers");

    refused(&guarded.ran(ca(access(&other, Some(&stranger))), &look), 2, "trusted authority");
    let mut plain = guarded.as_other(access(&dir, None), &look);
    plain.env("KILN_FARM", guarded.farm.url.replace("https", "http"));
    assert_ne!(Ran::from(plain).code, 0, "expected plain HTTP to be refused");
}

#[test]
fn everybody_does_only_what_their_role_allows() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let dir = project(&[("kiln.toml", PROJECT)]);
    let build = ["build", dir.path().to_str().unwrap()];
    let reader = certificate(&guarded.dir(), "reader", &["--role", "cache-reader"]);
    let reader = access(&guarded.dir(), Some(&reader));
    well(guarded.ran(reader.clone(), &["artifacts"]));
    refused(&guarded.ran(reader.clone(), &build), 2, "`builder`");
    // A worker's certificate does not identify a person.
    let state = guarded.farm.dir.path().join("one/membership/worker.pem");
    let mut worker = access(&guarded.dir(), None);
    for name in ["KILN_CERT", "KILN_KEY"] {
        worker.push((name.to_owned(), state.display().to_string()));
    }
    refused(&guarded.ran(worker, &build), 2, "`one` presented no lease");
    // A person's certificate does not identify a worker.
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder"]);
    let variables = access(&guarded.dir(), Some(&ann));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    guarded.farm.start_worker_in(&guarded.farm.url, "ann", &[], &variables);
    until("a person's worker to be refused", || {
        guarded.farm.log("ann").contains("`ann` has no permission").then_some(())
    });
    // A builder may not prune the cache of others.
    let builder = access(&guarded.dir(), Some(&ann));
    refused(&guarded.ran(builder, &["cache", "prune", "--older-than", "1d"]), 2, "requires the role `admin`");
    // A worker may only register under its certificate's name.
    let two = certificate(&guarded.dir(), "two", &["--role", "worker"]);
    let variables = access(&guarded.dir(), Some(&two));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    guarded.farm.start_worker_in(&guarded.farm.url, "three", &[], &variables);
    until("a worker of another name to be refused", || {
        guarded.farm.log("three").contains("certificate is for `two`, but it registers as `three`").then_some(())
    });
}

#[test]
fn who_is_revoked_is_refused_at_once_also_in_the_middle_of_a_build() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder"]);
    let dir = project(&[("kiln.toml", WAITS)]);
    let arguments = ["build", "--progress", "json", dir.path().to_str().unwrap()];
    let mut build = Running::start(guarded.as_other(access(&guarded.dir(), Some(&ann)), &arguments));
    build.started("wait");
    guarded.make(&["revoke", "ann"]);
    let ended = build.end();
    assert_eq!(ended.0.code, 2, "expected the open stream to end: {ended:?}");
    assert!(ended.0.err.contains("`ann` has been revoked"), "{ended:?}");
    refused(&guarded.ran(access(&guarded.dir(), Some(&ann)), &["workers"]), 2, "has been revoked");
    // Over the network, by an authorised caller.
    let bob = certificate(&guarded.dir(), "bob", &["--role", "builder"]);
    let over = |who: Option<&std::path::Path>, name: &str| {
        let mut command = guarded.as_other(access(&guarded.dir(), who), &["farm", "revoke", name]);
        command.env_remove("KILN_FARM_DIR");
        Ran::from(command)
    };
    refused(&over(Some(&bob), "one"), 2, "requires the role `farm-admin`");
    let admin = guarded.dir().join("people/admin");
    refused(&over(Some(&admin), "admin"), 2, "ask another admin to do it");
    refused(&local(&["farm", "revoke", "one"]), 2, "--farm-dir");
    well(over(Some(&admin), "one"));
    let kept = std::fs::read_to_string(guarded.dir().join("revoked.toml")).unwrap();
    assert!(kept.contains("\"one\"") && kept.contains("\"ann\""), "expected both to be recorded: {kept}");
    until("the revoked worker to be away", || {
        guarded.farm.workers().iter().any(|worker| worker["worker"] == "one" && worker["state"] == "away").then_some(())
    });
    until("the worker to be told", || guarded.farm.log("one").contains("has been revoked").then_some(()));
}

#[test]
fn certificates_are_replaced_while_everything_runs() {
    let guarded = Guarded::start(&["--worker-certificate-life", "4s"]);
    guarded.worker("one");
    let state = guarded.farm.dir.path().join("one/membership/worker.pem");
    let first = std::fs::read(&state).unwrap();
    until("the worker to replace its certificate", || (std::fs::read(&state).unwrap() != first).then_some(()));
    until("the worker to come back with the new one", || {
        (guarded.farm.log("one").matches("registered").count() > 1).then_some(())
    });
    guarded.farm.wait_for_worker("one");
    // Another certificate for the coordinator, with a name that the first did not cover.
    let by_name = guarded.farm.url.replace("127.0.0.1", "localhost");
    let look = |url: &str| {
        let mut command = guarded.farm.command(&["workers"]);
        command.env("KILN_FARM", url);
        Ran::from(command)
    };
    refused(&look(&by_name), 2, "for another name");
    guarded.make(&["renew", "--host", "localhost", "--host", "127.0.0.1"]);
    until("the coordinator to reload its certificate", || (look(&by_name).code == 0).then_some(()));
}

#[test]
fn a_worker_joins_only_the_farm_that_its_token_is_for_and_only_by_a_token_that_is_known() {
    let guarded = Guarded::start(&[]);
    let other = tempfile::tempdir().unwrap();
    let other = other.path().join("farm");
    let foreign = well(local(&["farm", "init", other.to_str().unwrap(), "--host", "127.0.0.1"]));
    let (authority, _) = guarded.join.rsplit_once('.').unwrap();
    for (name, token, word) in [
        ("impostor", foreign.as_str(), "does not belong to the farm that the join token is for"),
        ("guess", &format!("{authority}.kiln_AAAA"), "unknown token"),
        ("nonsense", "join-me", "invalid join token"),
    ] {
        let state = guarded.farm.dir.path().join(format!("{name}-state"));
        let ran = local(&[
            "worker",
            "--coordinator",
            &guarded.farm.url,
            "--name",
            name,
            "--join",
            token,
            "--docker",
            "off",
            "--state-dir",
            state.to_str().unwrap(),
        ]);
        refused(&ran, 3, word);
    }
}

#[test]
fn a_worker_that_is_started_before_its_farm_joins_when_the_farm_is_there() {
    let guarded = Guarded::start(&[]);
    guarded.farm.kill_coordinator();
    guarded.farm.start_worker_in(&guarded.farm.url, "early", &["--join", &guarded.join], &[]);
    until("the worker to say that it waits", || {
        guarded.farm.log("early").contains("cannot join the farm yet").then_some(())
    });
    guarded.farm.restart_coordinator();
    guarded.farm.wait_for_worker("early");
}

#[test]
fn a_coordinator_that_others_reach_does_not_start_without_asking_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let ran = local(&["coordinator", "--listen", "0.0.0.0:0", "--data-dir", data.to_str().unwrap()]);
    refused(&ran, 3, "can be reached from other machines");
    assert!(ran.err.contains("--farm-dir") && ran.err.contains("--insecure"), "expected a suggested fix: {}", ran.err);
    assert!(!data.join("blobs").exists(), "expected nothing to be created before the check");
}

/// What a user without rights gets from a socket: the first byte of a farm's response, or the error.
fn as_nobody(socket: &std::path::Path) -> String {
    let attack = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(20)\n\
                  try:\n    s.connect(sys.argv[1])\n    s.send(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0')\n    \
                  print('answered' if s.recv(1) else 'closed')\nexcept OSError as error:\n    print(type(error).__name__)\n";
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", attack]).arg(socket);
    Ran::from(command).out.trim().to_owned()
}

#[test]
fn the_farm_inside_a_command_is_its_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        return kiln_harness::cannot_run("only root can become another user");
    }
    let (dir, cache) = (project(&[("kiln.toml", WAITS)]), tempfile::tempdir_in("/tmp").unwrap());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(["build", "--progress", "json"]).current_dir(dir.path()).env_remove("KILN_FARM");
    command.env("XDG_CACHE_HOME", cache.path()).env("USER", "tester");
    let mut build = Running::start(command);
    build.started("wait");
    let farm = cache.path().join("kiln/farm");
    let address = std::fs::read_to_string(farm.join("address")).unwrap();
    let socket = std::path::PathBuf::from(address.strip_prefix("unix://").expect("expected a socket"));

    // It does not listen on a network.
    let pid = build.pid();
    let sockets = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|fd| {
        let target = std::fs::read_link(fd.unwrap().path()).ok()?.display().to_string();
        Some(target.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
    });
    let sockets: Vec<String> = sockets.collect();
    assert!(!sockets.is_empty());
    for table in ["tcp", "tcp6"] {
        const LISTENS: &str = "0A";
        for line in std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let own = sockets.iter().any(|inode| inode == fields[9]);
            assert!(!(own && fields[3] == LISTENS), "expected no listening socket, found {line}");
        }
    }

    // Another user cannot reach the socket, and is not served even if the directories allow it.
    assert_eq!(std::fs::metadata(&farm).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(as_nobody(&socket), "PermissionError");
    for opened in [cache.path(), &cache.path().join("kiln"), &farm, socket.as_path()] {
        std::fs::set_permissions(opened, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let answer = as_nobody(&socket);
    assert!(matches!(answer.as_str(), "closed" | "BrokenPipeError" | "ConnectionResetError"), "found: {answer}");
    build.interrupt();
    assert_eq!(build.end().0.code, 130);
}

#[test]
fn a_coordinator_on_loopback_takes_the_calls_of_its_own_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = kiln_harness::caretaker::directory();
    let state = dir.path().join("state");
    let variables = vec![("XDG_STATE_HOME".to_owned(), state.display().to_string())];
    let farm = kiln_harness::Farm::bare(dir, "http", variables.clone(), &[kiln_harness::ASKS], variables);
    farm.wait_until_up();
    farm.start_worker_in(&farm.url, "one", &[], &[("XDG_STATE_HOME", state.to_str().unwrap())]);
    farm.wait_for_worker("one");
    let dir = project(&[("kiln.toml", PROJECT)]);
    farm.build(dir.path(), &[]).well();

    // The token is in a file that only its owner can read.
    let tokens = || std::fs::read_dir(state.join("kiln/local")).unwrap().map(|file| file.unwrap().path()).next();
    let file = tokens().expect("expected a file with the token");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert_eq!(mode(&farm.dir.path().join("coordinator")), 0o700);
    let first = std::fs::read_to_string(&file).unwrap();
    let stranger = |token: Option<&str>| {
        let elsewhere = ("XDG_STATE_HOME".to_owned(), "/nowhere".to_owned());
        let mut command = farm.command(&["build", dir.path().to_str().unwrap()]);
        command.envs([elsewhere]).envs(token.map(|token| ("KILN_TOKEN", token.trim())));
        Ran::from(command)
    };
    refused(&stranger(None), 2, "accepts only the user who started it");
    refused(&stranger(Some("kiln_guess")), 2, "accepts only the user who started it");
    well(stranger(Some(&first)));
    // A worker is authenticated like other callers.
    farm.start_worker_in(&farm.url, "two", &[], &[("XDG_STATE_HOME", "/nowhere")]);
    until("a stranger's worker to be refused", || farm.log("two").contains("who started it").then_some(()));

    // The next start has another token, which clients find by themselves.
    farm.restart_coordinator();
    farm.wait_until_up();
    farm.wait_for_worker("one");
    assert_ne!(std::fs::read_to_string(&file).unwrap(), first);
    refused(&stranger(Some(&first)), 2, "who started it");
    // A coordinator that stops in order removes its token.
    farm.replace_coordinator();
    farm.wait_until_up();
    assert!(tokens().is_some());
}

#[test]
fn who_did_what_is_written_down_and_who_was_refused() {
    use std::os::unix::fs::PermissionsExt;
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("audit.jsonl");
    let guarded = Guarded::start(&["--audit-log", log.to_str().unwrap()]);
    guarded.worker("one");
    let dir = project(&[("kiln.toml", PROJECT)]);
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder", "--tenant", "shop"]);
    let mut command = guarded.as_other(access(&guarded.dir(), Some(&ann)), &["build", "--progress", "json"]);
    command.arg(dir.path()).env("USER", "somebody-else");
    let built = kiln_harness::Built(Ran::from(command)).well();
    refused(&guarded.ran(access(&guarded.dir(), Some(&ann)), &["farm", "drain", "one"]), 2, "`farm-admin`");
    refused(&guarded.ran(token(&guarded.dir(), "kiln_guess"), &["builds"]), 2, "unknown token");
    well(guarded.farm.kiln(&["farm", "drain", "one"]));
    well(guarded.farm.kiln(&["farm", "revoke", "ann"]));

    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |call: &str, outcome: &str| {
        let found = lines.iter().find(|line| line["call"] == call && line["outcome"] == outcome);
        found.unwrap_or_else(|| panic!("expected {call} ({outcome}) in:\n{text}")).clone()
    };
    let submitted = of("/kiln.v1.Builds/Submit", "OK");
    assert_eq!((&submitted["identity"], &submitted["tenant"]), (&"ann".into(), &"shop".into()));
    assert!(submitted["subject"].as_str().unwrap().contains(&built.id()), "{submitted}");
    assert!(submitted["address"].as_str().unwrap().starts_with("127.0.0.1:") && submitted["serial"].is_string());
    assert_eq!(of("/kiln.v1.Farm/DrainWorker", "PermissionDenied")["identity"], "ann");
    assert_eq!(of("/kiln.v1.Farm/DrainWorker", "OK")["subject"], "drain worker one");
    assert_eq!(of("/kiln.v1.Membership/Revoke", "OK")["subject"], "ann");
    assert_eq!(of("/kiln.v1.Membership/Join", "OK")["subject"], "worker one");
    let unknown = of("/kiln.v1.Builds/List", "Unauthenticated");
    assert!(unknown["identity"].is_null() && unknown["message"].as_str().unwrap().contains("unknown token"));
    assert!(!text.contains("kiln_guess"), "expected no secret in the log");
    assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);

    // The build belongs to ann, whatever her machine calls her, and its provenance says so.
    let amy = certificate(&guarded.dir(), "amy", &["--role", "builder", "--tenant", "shop"]);
    let listed = well(guarded.ran(access(&guarded.dir(), Some(&amy)), &["builds", "--json"]));
    let builds: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&builds[0]["identity"], &builds[0]["tenant"]), (&"ann".into(), &"shop".into()), "{listed}");
}

#[test]
fn every_call_that_changes_something_names_its_subject_also_where_it_fails() {
    use kiln_proto::longrunning::{CancelOperationRequest, operations_client::OperationsClient};
    use kiln_proto::reapi::{self, action_cache_client::ActionCacheClient, execution_client::ExecutionClient};
    use prost::Message;
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("audit.jsonl");
    let guarded = Guarded::start(&["--audit-log", log.to_str().unwrap()]);
    guarded.worker("one");
    let roles = ["--role", "builder", "--role", "cache-writer", "--role", "admin", "--tenant", "shop"];
    let ann = access(&guarded.dir(), Some(&certificate(&guarded.dir(), "ann", &roles)));
    let dir = project(&[("kiln.toml", PROJECT)]);
    let mut command = guarded.as_other(ann.clone(), &["build"]);
    well(Ran::from({
        command.arg(dir.path());
        command
    }));
    until("the step result to be recorded", || {
        well(guarded.ran(ann.clone(), &["cache", "list", "--json"])).contains("hello").then_some(())
    });
    well(guarded.ran(ann.clone(), &["cache", "prune", "--project", "hello", "--older-than", "0s"]));

    let of = |name: &str| ann.iter().find(|(variable, _)| variable == name).map(|(_, value)| value.into());
    let access = Access { ca: of("KILN_CA"), cert: of("KILN_CERT"), key: of("KILN_KEY"), token_file: None };
    let sha256 = DigestFunction::Sha256;
    let action = reapi::Action { command_digest: Some(sha256.digest(b"").to_wire()), ..Default::default() };
    let data = bytes::Bytes::from(action.encode_to_vec());
    let (known, unknown) = (sha256.digest(&data), sha256.digest(b"never uploaded"));
    let url = guarded.farm.url.clone();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let channel = channel::connect(&url, &access).await.unwrap();
        Client::new(channel.clone(), "", sha256).upload(vec![(known, Blob::Bytes(data))]).await.unwrap();
        let request = reapi::UpdateActionResultRequest {
            instance_name: "main".to_owned(),
            action_digest: Some(known.to_wire()),
            action_result: Some(Default::default()),
            ..Default::default()
        };
        ActionCacheClient::new(channel.clone()).update_action_result(request).await.unwrap();
        let request = reapi::ExecuteRequest {
            instance_name: "main".to_owned(),
            action_digest: Some(unknown.to_wire()),
            ..Default::default()
        };
        let mut execution = ExecutionClient::new(channel.clone());
        let refused = execution.execute(request.clone()).await.expect_err("expected an unknown action to be refused");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
        let request = reapi::ExecuteRequest { action_digest: Some(known.to_wire()), ..request };
        execution.execute(request).await.unwrap();
        let request = CancelOperationRequest { name: "operations/none".to_owned() };
        OperationsClient::new(channel).cancel_operation(request).await.unwrap_err();
    });

    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let subject = |call: &str, outcome: &str| {
        let found = lines
            .iter()
            .find(|line| line["call"].as_str().is_some_and(|path| path.ends_with(call)) && line["outcome"] == outcome);
        found.unwrap_or_else(|| panic!("expected {call} ({outcome}) in:\n{text}"))["subject"].clone()
    };
    let of_main = |action: Digest| format!("action {action} of instance main");
    assert_eq!(subject("/UpdateActionResult", "OK"), of_main(known));
    assert_eq!(subject("/Execute", "OK"), of_main(known));
    assert_eq!(subject("/Execute", "FailedPrecondition"), of_main(unknown));
    assert_eq!(subject("/CancelOperation", "NotFound"), "operations/none");
    assert_eq!(subject("/Link", "OK"), "worker one");
    let pruned = subject("/Prune", "OK");
    let words = "layers hello/*: 1 layers (1 of hello/make), ";
    assert!(pruned.as_str().unwrap().starts_with(words), "expected the pruned results: {pruned}");
    let without: Vec<_> = lines.iter().filter(|line| line["subject"].is_null()).collect();
    assert!(without.is_empty(), "expected a subject in each line: {without:?}");
}

#[test]
fn a_token_that_is_taken_out_of_the_file_ends_what_it_opened() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let ci = guarded.make(&["token", "ci", "--role", "builder"]);
    let dir = project(&[("kiln.toml", WAITS)]);
    let arguments = ["build", "--progress", "json", dir.path().to_str().unwrap()];
    let mut build = Running::start(guarded.as_other(token(&guarded.dir(), &ci), &arguments));
    build.started("wait");
    let file = guarded.dir().join("tokens.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: Vec<&str> = text.split("[[token]]").filter(|entry| !entry.contains("name = \"ci\"")).collect();
    std::fs::write(&file, kept.join("[[token]]")).unwrap();
    let ended = build.end();
    assert_eq!(ended.0.code, 2, "expected the open stream to end: {ended:?}");
}
