//! The Kubernetes objects, checked against schemas, against each other, and against the programs that they start.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use crate::{admission, deploy, printed};
use kiln_harness::guarded::{Guarded, local};
use kiln_harness::http;
use kiln_harness::{Farm, Lasting, cannot_run, project, until};
use parking_lot::Mutex;
use serde_json::Value;

/// Where `.ci/test` installs tools that are not on the path.
pub const TOOLS: &str = "/opt/kiln-test-tools/bin";

/// The objects that Kustomize makes of a directory, each known to its schema. `None`, with a message, if a tool is missing.
pub fn rendered(name: &str) -> Option<Vec<Value>> {
    let made = printed("kubectl", &["kustomize", deploy().join("kubernetes").join(name).to_str().unwrap()])?;
    checked(&made)
}

/// Checks objects against schemas, for as long as the tests run.
struct Schemas {
    program: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Schemas {
    /// `None`, with a message, if Python or what it needs is not installed.
    fn start() -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deploy/schemas.py");
        let mut command = Command::new(format!("{TOOLS}/python"));
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = command.spawn().map_err(|error| cannot_run(&format!("{command:?}: {error}"))).ok()?;
        let answers = BufReader::new(program.stdout.take().unwrap()).lines();
        Some(Self { program, answers })
    }

    /// The objects of this file, and what is wrong with them.
    fn look(&mut self, file: &Path) -> (Vec<Value>, Vec<String>) {
        writeln!(self.program.stdin.as_mut().unwrap(), "{}", file.display()).unwrap();
        let answer = self.answers.next().expect("expected the check of schemas to answer").unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        let part = |name: &str| answer[name].take();
        let [objects, problems] = ["objects", "problems"].map(part);
        (serde_json::from_value(objects).unwrap(), serde_json::from_value(problems).unwrap())
    }
}

/// The objects of a stream of YAML, and what the schemas of Kubernetes and of the operators that it extends do not allow.
fn looked_at(made: &str) -> Option<(Vec<Value>, Vec<String>)> {
    static SCHEMAS: OnceLock<Option<Mutex<Schemas>>> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(|| Schemas::start().map(Mutex::new)).as_ref()?;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(made.as_bytes()).unwrap();
    Some(schemas.lock().look(file.path()))
}

/// The objects of a stream of YAML, all of which the API server takes.
#[track_caller]
pub fn checked(made: &str) -> Option<Vec<Value>> {
    let (objects, mut problems) = looked_at(made)?;
    problems.extend(admission::problems(&objects));
    assert!(problems.is_empty(), "an API server refuses these: {problems:#?}");
    Some(objects)
}

pub fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let fits = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(fits).unwrap_or_else(|| panic!("expected a {kind} `{name}`"))
}

/// Asserts that a pod's probes and scrapers use the port on which its program serves metrics and health.
fn watched(name: &str, template: &Value) {
    let container = &template["spec"]["containers"][0];
    let port = container["ports"].as_array().unwrap().iter().find(|port| port["name"] == "metrics").unwrap();
    let port = port["containerPort"].as_u64().unwrap();
    assert_eq!(argument(container, "--metrics-listen"), format!("0.0.0.0:{port}"), "{name}");
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], port.to_string(), "{name}");
    for (probe, path) in [("startupProbe", ""), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(asked["port"], "metrics", "{name} {probe}");
        assert!(asked["path"].as_str().unwrap().contains(path), "{name} {probe}: {asked}");
    }
}

/// The value of this option in a container's arguments.
pub fn argument<'a>(container: &'a Value, option: &str) -> &'a str {
    let arguments = container["args"].as_array().unwrap();
    let at = arguments.iter().position(|argument| argument == option).unwrap_or_else(|| panic!("expected `{option}`"));
    arguments[at + 1].as_str().unwrap()
}

/// A container's arguments, adapted to this machine.
pub fn arguments(container: &Value, replaced: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in container["args"].as_array().unwrap() {
        let option = words.last().map(String::as_str).unwrap_or_default();
        let word = replaced.get(option).copied().unwrap_or(word.as_str().unwrap());
        words.push(word.to_owned());
    }
    words
}

#[test]
fn probes_are_answered_by_programs_with_the_arguments_that_stand_in_the_objects() {
    let Some(base) = rendered("base") else { return };
    let container = |name: &str| named(&base, "StatefulSet", name)["spec"]["template"]["spec"]["containers"][0].clone();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (coordinator, worker) = (container("kiln-coordinator"), container("kiln-worker-amd64"));
    let (at_coordinator, at_worker) = (port(), port());
    // `Guarded` provides the farm's directory.
    let mut own = arguments(&coordinator, &[("--metrics-listen", at_coordinator.as_str())].into());
    let farm_dir = own.iter().position(|word| word == "--farm-dir").unwrap();
    own.drain(farm_dir..farm_dir + 2);
    let guarded = Guarded::start(&own.iter().map(String::as_str).collect::<Vec<_>>());
    let small = [("--metrics-listen", at_worker.as_str()), ("--memory", "1GiB"), ("--cpus", "1")].into();
    let mut own = arguments(&worker, &small);
    own.extend(["--join".to_owned(), guarded.join.clone()]);
    guarded.farm.start_worker_with("one", &own.iter().map(String::as_str).collect::<Vec<_>>());
    guarded.farm.wait_for_worker("one");
    for (container, address) in [(coordinator, at_coordinator), (worker, at_worker)] {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let path = container[probe]["httpGet"]["path"].as_str().unwrap();
            until(&format!("`{path}` of `{}` to be answered well", container["name"]), || {
                (http::get(&address, path).0 == 200).then_some(())
            });
        }
    }
}

/// The value of a container's variable.
fn variable<'a>(container: &'a Value, name: &str) -> &'a str {
    let variables = container["env"].as_array().unwrap();
    let found = variables.iter().find(|variable| variable["name"] == name);
    found
        .and_then(|variable| variable["value"].as_str())
        .unwrap_or_else(|| panic!("expected `{name}` in {variables:?}"))
}

#[test]
fn two_coordinators_are_apart_find_each_other_and_one_of_them_stays() {
    let Some(base) = rendered("base") else { return };
    let set = &named(&base, "StatefulSet", "kiln-coordinator")["spec"];
    let service = &named(&base, "Service", "kiln-coordinator")["spec"];
    assert_eq!((&set["replicas"], &set["serviceName"]), (&2.into(), &"kiln-coordinator".into()));
    // Names of pods exist below a Service without an address, and have to be there for one that is not ready, too.
    assert_eq!((&service["clusterIP"], &service["publishNotReadyAddresses"]), (&"None".into(), &true.into()));
    assert_eq!(named(&base, "PodDisruptionBudget", "kiln-coordinator")["spec"]["minAvailable"], 1);
    let template = &set["template"];
    for constraint in template["spec"]["topologySpreadConstraints"].as_array().unwrap() {
        assert_eq!(constraint["labelSelector"]["matchLabels"], template["metadata"]["labels"]);
    }
    // A variable may name only those before it.
    let container = &template["spec"]["containers"][0];
    let names: Vec<&str> =
        container["env"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().position(|known| *known == name).unwrap();
    assert!(place("POD_NAME") < place("KILN_ADVERTISE") && place("POD_NAMESPACE") < place("KILN_ADVERTISE"));

    let advertised = variable(container, "KILN_ADVERTISE");
    assert_eq!(advertised, "https://$(POD_NAME).kiln-coordinator.$(POD_NAMESPACE).svc:8980");

    // The certificate that the manifest asks for is good for what workers call.
    let worker = &named(&base, "StatefulSet", "kiln-worker-amd64")["spec"]["template"]["spec"]["containers"][0];
    let text = std::fs::read_to_string(deploy().join("kubernetes/base/coordinator.yaml")).unwrap();
    let command = text.split('`').find(|part| part.starts_with("kiln farm init DIR ")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let farm = dir.path().join("farm");
    let words = command.replace("DIR", farm.to_str().unwrap());
    assert_eq!(local(&words.split(' ').skip(1).collect::<Vec<_>>()).code, 0, "{command}");
    let host = variable(worker, "KILN_COORDINATOR").strip_prefix("https://").unwrap().strip_suffix(":8980").unwrap();
    let own = farm.join("coordinator.pem");
    let said = printed("openssl", &["x509", "-noout", "-in", own.to_str().unwrap(), "-checkhost", host]);
    assert!(said.is_none_or(|said| said.contains("does match")), "expected the certificate to be for `{host}`");
}

#[test]
fn pools_that_scale_to_zero_are_declared_and_have_a_queue_before_any_worker_is_there() {
    let Some(objects) = rendered("keda-zero") else { return };
    let container = &named(&objects, "StatefulSet", "kiln-coordinator")["spec"]["template"]["spec"]["containers"][0];
    let declared = variable(container, "KILN_POOLS");
    let metrics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let variables = vec![("KILN_POOLS".to_owned(), declared.to_owned())];
    let farm = Farm::with_variables(variables, &["--metrics-listen", &metrics], &[]);
    let samples = http::samples(&metrics);
    for pool in declared.split(';') {
        let empty = format!("kiln_pool_queue_actions{{pool=\"{pool}\"}} 0");
        assert!(samples.contains(&empty), "expected `{empty}` in {samples:#?}");
        // A build for it waits, though no worker was ever there, and the scaler's query counts it.
        let (_, arch) = pool.split_once('/').unwrap();
        let scaler = &named(&objects, "ScaledObject", &format!("kiln-worker-{arch}"))["spec"];
        assert_eq!(scaler["minReplicaCount"], 0);
        let text = "name = \"waits\"\n[steps.make]\nrun = \"true > out\"\noutputs = [\"out\"]\n\
                    [artifacts.out]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
        let dir = project(&[("kiln.toml", text)]);
        let build = farm.start_build(dir.path(), &["--platform", pool]);
        let query = scaler["triggers"][0]["metadata"]["query"].as_str().unwrap();
        let isa = if arch == "amd64" { "x86-64" } else { "arm-a64" };
        assert!(query.contains(&format!("kiln_waiting_targets{{isa=\"{isa}\"}}")), "{query}");
        let counted = |count: u32| {
            let sample = format!("kiln_waiting_targets{{isa=\"{isa}\",pool=\"{pool}\"}} {count}");
            until(&format!("`{sample}`"), || http::samples(&metrics).contains(&sample).then_some(()));
        };
        counted(1);
        build.interrupt();
        let _ = build.end();
        counted(0);
    }
}

#[test]
fn webhooks_are_taken_where_the_overlay_has_the_ingress_deliver_them() {
    let Some(objects) = rendered("webhooks") else { return };
    let pod = &named(&objects, "StatefulSet", "kiln-coordinator")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let mounted = |name: &str| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["name"] == name).unwrap()["mountPath"].as_str().unwrap().to_owned()
    };
    // What the base has is still present.
    assert_eq!(argument(container, "--farm-dir"), mounted("farm"));
    let place = mounted("webhooks");
    let variables = container["env"].as_array().unwrap();
    assert_eq!(variables[0], serde_json::json!({ "name": "KILN_WEBHOOKS", "value": format!("{place}/webhooks.toml") }));
    let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "webhooks").unwrap();
    let map = volume["projected"]["sources"][0]["configMap"]["name"].as_str().unwrap();
    let text = named(&objects, "ConfigMap", map)["data"]["webhooks.toml"].as_str().unwrap();
    let items = volume["projected"]["sources"][1]["secret"]["items"].as_array().unwrap();
    let service = &named(&objects, "Service", "kiln-webhooks")["spec"];
    let labels = &named(&objects, "StatefulSet", "kiln-coordinator")["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&service["selector"], &service["ports"][0]["targetPort"]), (labels, &"webhooks".into()));
    let rule = &named(&objects, "Ingress", "kiln-webhooks")["spec"]["rules"][0]["http"]["paths"][0];
    assert_eq!((&rule["path"], &rule["backend"]["service"]["name"]), (&"/webhooks/".into(), &"kiln-webhooks".into()));
    let ports = container["ports"].as_array().unwrap();
    let port = &ports.iter().find(|port| port["name"] == "webhooks").unwrap()["containerPort"];
    assert!(text.contains(&format!("listen = \"0.0.0.0:{port}\"")), "expected the container's port {port} in {text}");

    // The coordinator accepts the file, with the secrets from the volume.
    let dir = tempfile::tempdir().unwrap();
    for item in items {
        let path = dir.path().join(item["path"].as_str().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "0123456789abcdef0123456789abcdef\n").unwrap();
    }
    let text = text.replace(&place, dir.path().to_str().unwrap()).replace(&format!("0.0.0.0:{port}"), "127.0.0.1:0");
    std::fs::write(dir.path().join("webhooks.toml"), text).unwrap();
    let farm_dir = dir.path().join("farm");
    assert_eq!(local(&["farm", "init", farm_dir.to_str().unwrap(), "--host", "localhost"]).code, 0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command
        .args(["coordinator", "--listen", "127.0.0.1:0", "--parent", &std::process::id().to_string(), "--data-dir"])
        .arg(dir.path().join("data"))
        .arg("--farm-dir")
        .arg(farm_dir)
        .env("KILN_WEBHOOKS", dir.path().join("webhooks.toml"))
        .env("KILN_LOG", "info");
    Lasting::start(command).line_with("accepting webhooks");
}

#[test]
fn no_worker_may_reach_a_metadata_address_nor_be_reached_but_by_scrapers() {
    let Some(base) = rendered("base") else { return };
    let policy = &named(&base, "NetworkPolicy", "kiln-worker")["spec"];
    let chosen = policy["podSelector"]["matchLabels"].as_object().unwrap();
    for set in base.iter().filter(|object| object["kind"] == "StatefulSet") {
        let (name, labels) = (&set["metadata"]["name"], &set["spec"]["template"]["metadata"]["labels"]);
        let fits = chosen.iter().all(|(label, value)| &labels[label] == value);
        assert_eq!(fits, name != "kiln-coordinator", "{name}");
    }
    assert_eq!(policy["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
    assert_eq!(policy["ingress"], serde_json::json!([{ "ports": [{ "port": "metrics" }] }]));
    let blocks: Vec<&Value> = policy["egress"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["to"].as_array().into_iter().flatten())
        .filter(|to| !to["ipBlock"].is_null())
        .map(|to| &to["ipBlock"])
        .collect();
    assert_eq!(blocks.len(), 2, "expected a block for each version of IP: {blocks:?}");
    for (block, metadata) in blocks.iter().zip(["169.254.0.0/16", "fd00:ec2::/32"]) {
        assert!(
            block["except"].as_array().unwrap().contains(&metadata.into()),
            "expected {metadata} to be left out of {block}"
        );
    }
}

#[test]
fn the_operator_scrapes_the_port_that_every_pod_names() {
    let Some(base) = rendered("base") else { return };
    let Some(objects) = rendered("prometheus-operator") else { return };
    let monitor = &named(&objects, "PodMonitor", "kiln")["spec"];
    assert_eq!(monitor["podMetricsEndpoints"][0]["port"], "metrics");
    let wanted = monitor["selector"]["matchLabels"].as_object().unwrap();
    for set in base.iter().filter(|object| object["kind"] == "StatefulSet") {
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        assert!(wanted.iter().all(|(name, value)| &labels[name] == value), "expected {labels} to have {wanted:?}");
    }
}

#[test]
fn every_variant_can_be_applied() {
    let directories = std::fs::read_dir(deploy().join("kubernetes")).unwrap().flatten();
    let names: Vec<String> = directories.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name == "base") && names.iter().any(|name| name == "one"), "{names:?}");
    for name in names {
        let Some(objects) = rendered(&name) else { return };
        assert!(!objects.is_empty(), "{name}");
    }
}

#[test]
fn what_the_schemas_do_not_allow_is_noticed() {
    let map = |more: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: it}}\n{more}");
    let scaled = |more: &str| {
        format!(
            "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: it}}\nspec: {{scaleTargetRef: {{name: x}}, triggers: []{more}}}\n"
        )
    };
    for (made, expected) in [
        (map(""), None),
        (map("dat: {}\n"), Some("dat")),
        (map("data: [one]\n"), Some("data")),
        (map("").replace("ConfigMap", "ConfgMap"), Some("ConfgMap")),
        (scaled(""), None),
        (scaled(", trigger: []"), Some("trigger")),
        (scaled(", minReplicaCount: few"), Some("minReplicaCount")),
        (scaled("").replace("ScaledObject", "ScaledThing"), Some("ScaledThing")),
        (scaled("").replace("keda.sh", "kedda.sh"), Some("kedda.sh")),
    ] {
        let Some((objects, problems)) = looked_at(&made) else { return };
        assert_eq!(objects.len(), 1, "{made}");
        assert_eq!(problems.is_empty(), expected.is_none(), "{made}: {problems:?}");
        assert!(problems.iter().all(|problem| problem.contains(expected.unwrap_or_default())), "{made}: {problems:?}");
    }
}

#[test]
fn kubernetes_objects_fit_their_schemas_and_each_other() {
    let Some(base) = rendered("base") else { return };
    for object in &base {
        let is_namespace = object["kind"] == "Namespace";
        assert!(is_namespace || object["metadata"]["namespace"] == "kiln", "expected a namespace: {object}");
    }
    for name in ["kiln-coordinator", "kiln-worker-amd64", "kiln-worker-arm64"] {
        let set = named(&base, "StatefulSet", name);
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&set["spec"]["selector"]["matchLabels"], labels, "{name}");
        assert_eq!(&named(&base, "Service", name)["spec"]["selector"], labels, "{name}");
        assert_eq!(&named(&base, "PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"], labels, "{name}");
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{name}");
        assert_eq!(pod["securityContext"]["fsGroupChangePolicy"], "OnRootMismatch", "{name}");
        watched(name, &set["spec"]["template"]);
    }
    for (arch, isa) in [("amd64", "x86-64"), ("arm64", "arm-a64")] {
        let name = format!("kiln-worker-{arch}");
        let pool = named(&base, "StatefulSet", &name);
        assert_eq!(pool["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/arch"], arch);
        assert!(pool["spec"]["replicas"].is_null(), "expected `{name}` to leave its size to a scaler");
        // A worker that comes back under its name without its key is refused (`cli/tests/intruders/main.rs`).
        let kept = serde_json::json!({"whenScaled": "Retain", "whenDeleted": "Retain"});
        assert_eq!(pool["spec"]["persistentVolumeClaimRetentionPolicy"], kept, "{name}");
        for (form, kind) in [("keda", "ScaledObject"), ("hpa", "HorizontalPodAutoscaler")] {
            let Some(objects) = rendered(form) else { return };
            let scaler = named(&objects, kind, &name);
            let target = &scaler["spec"]["scaleTargetRef"];
            assert_eq!((&target["kind"], &target["name"]), (&"StatefulSet".into(), &name.as_str().into()), "{form}");
            assert_eq!(scaler["metadata"]["namespace"], "kiln", "{form}");
            // Scaled by the pool's instruction set, the only difference between a variant's two files.
            assert!(scaler.to_string().contains(isa), "expected {form} to query `{isa}`: {scaler}");
        }
    }
    // To KEDA's definitions a trigger's metadata are any strings: what its prometheus trigger requires is checked here.
    for object in rendered("keda").unwrap_or_default() {
        let trigger = &object["spec"]["triggers"][0];
        assert_eq!(trigger["type"], "prometheus");
        for field in ["serverAddress", "query", "threshold"] {
            assert!(trigger["metadata"][field].is_string(), "expected `{field}` as a string in {trigger}");
        }
    }
}
