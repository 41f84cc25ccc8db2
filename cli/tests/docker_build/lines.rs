//! What a command line changes about a build, and what is wrong with others.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, mpsc};

use kiln_harness::{Farm, Ran, output, project};

use crate::{Project, well};

/// For each of the two commands of a build, whether its result was cached, as the summary says.
fn caches(ran: &Ran) -> Vec<bool> {
    let rows = ran.err.lines().filter(|line| line.contains("] RUN ") && !line.contains(" | "));
    let cached = |line: &str| {
        line.split_whitespace().find_map(|word| match word {
            "hit" => Some(true),
            "miss" => Some(false),
            _ => None,
        })
    };
    rows.filter_map(cached).collect()
}

#[test]
fn commands_run_again_where_that_is_asked_for() {
    let text = "FROM base AS one\nRUN echo 1 > /1\nFROM base AS two\nRUN echo 2 > /2\nFROM scratch\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n";
    let Some(project) = Project::new(text, &[]) else { return };
    let farm = Farm::shared();
    let run = |more: &[&str]| {
        let mut found = caches(&project.well(farm, &[&["--progress", "plain"], more, &["."]].concat()));
        found.sort_unstable();
        found
    };
    assert_eq!(run(&[]), [false, false]);
    assert_eq!(run(&[]), [true, true]);
    assert_eq!(run(&["--no-cache-filter", "TWO"]), [false, true]);
    assert_eq!(run(&["--no-cache"]), [false, false]);
    assert_eq!(run(&["--no-cache=false"]), [true, true]);
}

#[test]
fn arguments_hosts_networks_and_secrets_reach_commands() {
    let text = "FROM base\nARG FROM_ENV\nARG GIVEN=default\n\
                RUN --mount=type=secret,id=my-token.txt,required=true --mount=type=secret,id=ENVIRONMENT,env=SECRET \
                echo \"$FROM_ENV $GIVEN\" > /said && cp /run/secrets/my-token.txt /copy && test \"${#SECRET}\" = 20\n\
                RUN grep -w db.internal /etc/hosts > /hosts; ls /sys/class/net > /net\n";
    let Some(project) = Project::new(text, &[("token", "with\nnewline\n")]) else { return };
    let farm = Farm::shared();
    let out = tempfile::tempdir().unwrap();
    let to = out.path().display().to_string();
    let line = |address: &'static str| -> Vec<&'static str> {
        vec![
            "--build-arg",
            "FROM_ENV",
            "--build-arg",
            "GIVEN=a=b",
            "--secret",
            "id=my-token.txt,src=token",
            "--secret",
            "id=ENVIRONMENT",
            "--add-host",
            address,
            "--network",
            "none",
            "--progress",
            "plain",
        ]
    };
    let run = |address: &'static str| {
        let mut command = project.command(farm, &[&line(address)[..], &["-o", &to, "."]].concat());
        command.env("FROM_ENV", "outer").env("ENVIRONMENT", "from the environment");
        well(command.into())
    };
    let ran = run("db.internal:10.1.2.3");
    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap();
    assert_eq!((read("said").as_str(), read("copy").as_str()), ("outer a=b\n", "with\nnewline\n"));
    assert_eq!((read("hosts").as_str(), read("net").as_str()), ("10.1.2.3 db.internal\n", "lo\n"));
    assert!(!ran.err.contains("from the environment"), "{}", ran.err);
    assert_eq!(caches(&run("db.internal:10.9.9.9")), [true, true], "an address is in no key");
    let missing = project.build(farm, &["."]);
    assert!(missing.code == 1 && missing.err.contains("secret `my-token.txt` is required"), "{missing:?}");
}

#[test]
fn calls_answer_without_a_farm_and_with_docker_s_exit_codes() {
    let dir = project(&[
        ("Dockerfile", "# build compiles\nFROM scratch AS build\nARG A=1\nMAINTAINER joe\n"),
        ("clean", "FROM scratch\n"),
        ("broken", "FORM scratch\n"),
    ]);
    let run = |line: &[&str]| {
        let mut command = Farm::shared().command(&[&["docker", "build"], line].concat());
        command.current_dir(dir.path()).env("KILN_FARM", "http://127.0.0.1:1");
        Ran::from(command)
    };
    let found = run(&["--check", "."]);
    assert!(found.code == 1 && found.out.contains("WARNING: MaintainerDeprecated"), "{found:?}");
    let clean = run(&["--call=check", "-f", "clean", "."]);
    assert_eq!((clean.code, clean.out.as_str()), (0, "Check complete, no warnings found.\n"));
    let broken = run(&["--check", "-f", "broken", "."]);
    assert!(broken.code == 1 && broken.err.contains("did you mean `FROM`?"), "{broken:?}");
    let targets = run(&["--call", "targets,format=json", "."]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&targets.out).unwrap()["targets"][0]["description"],
        "compiles"
    );
    assert!(run(&["--call", "outline", "."]).out.contains("BUILD ARG"));
    assert!(run(&["--help"]).out.contains("--no-cache-filter"));
}

#[test]
fn what_is_wrong_has_docker_s_exit_code_and_a_reason() {
    let Some(project) = Project::new("FROM base\nRUN echo told >&2; exit 7\n", &[]) else { return };
    let farm = Farm::shared();
    for (line, code, words) in [
        (&["--tga", "x", "."][..], 125, "did you mean `--tag`?"),
        (&["--squash", "."], 1, "`--squash` is not supported"),
        (&["-t", "UPPER", "."], 1, "lower case"),
        (&["--push", "."], 1, "needs a name"),
        (&["absent"], 1, "no directory `absent`"),
        (&["-f", "absent", "."], 1, "cannot read the Dockerfile `absent`"),
        (&["--target", "absent", "."], 1, "absent"),
        (&["--secret", "id=x,src=absent", "."], 1, "cannot read the secret `x`"),
        (&["--build-context", "x=absent", "."], 1, "context `x`"),
        (&["-q", "."], 1, "told"),
        (
            &["--annotation", "index:k=v", "--provenance=false", "-o", "type=oci,dest=x", "-f", "-", "."],
            1,
            "no instructions",
        ),
    ] {
        let ran = project.build(farm, line);
        assert_eq!(ran.code, code, "{line:?}: {ran:?}");
        assert!(ran.err.contains(words) && ran.out.is_empty(), "{line:?}: expected `{words}` in: {ran:?}");
    }
    let other = farm.kiln(&["docker", "run", "alpine"]);
    assert!(other.code == 1 && other.err.contains("Kiln only builds"), "{other:?}");
    let stale = project.path().join("id");
    std::fs::write(&stale, "sha256:old").unwrap();
    let failed = project.build(farm, &["--iidfile", "id", "."]);
    assert!(failed.code == 1 && !stale.exists(), "nobody takes an old id for a new one: {failed:?}");
}

/// Opened when it is true.
type Gate = Arc<(Mutex<bool>, Condvar)>;

/// Serves a file, but only once the caller says so; tells when it is asked for.
fn held() -> (String, mpsc::Receiver<()>, Gate) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, asks) = mpsc::channel();
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let opened = gate.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, asked, gate) = (stream.unwrap(), asked.clone(), opened.clone());
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = asked.send(());
                drop(gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open));
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx");
            });
        }
    });
    (url, asks, gate)
}

#[test]
fn what_a_line_asks_for_survives_the_coordinator() {
    let (url, asks, gate) = held();
    let dir = project(&[("Dockerfile", &format!("FROM scratch\nADD {url}/file /file\n"))]);
    // The machine's loopback, where this test serves, is closed to steps otherwise.
    let farm = Farm::start(&[]);
    farm.start_worker_with("one", &["--network-isolation", "off"]);
    farm.wait_for_worker("one");
    let line = [
        "docker",
        "build",
        "--label",
        "kept=1",
        "--annotation",
        "also=2",
        "-o",
        "type=oci,dest=out.tar,compression=zstd",
        "--provenance=false",
        ".",
    ];
    let mut command = farm.command(&line);
    command.current_dir(dir.path());
    let building = std::thread::spawn(move || Ran::from(command));
    asks.recv().unwrap();
    farm.restart_coordinator();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    well(building.join().unwrap());
    let inspect = |how: &str| output("skopeo", &["inspect", how, "oci-archive:out.tar"], dir.path());
    assert!(inspect("--config").contains("\"kept\": \"1\""), "{}", inspect("--config"));
    let manifest = inspect("--raw");
    assert!(manifest.contains("\"also\":\"2\"") && manifest.contains("tar+zstd"), "{manifest}");
}
