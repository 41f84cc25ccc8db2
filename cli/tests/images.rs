//! Container images on a farm of real processes: their contents, what is rebuilt, and what is refused.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use kiln_harness::bases::debian_layout;
use kiln_harness::engine::Engine;
use kiln_harness::registry::{Registry, Setup};
use kiln_harness::{Built, Farm, Ran, has, output, project, write};
use serde_json::Value;

/// Dependencies in one step, the project's own program in another.
const SHOP: &str = r#"
name = "shop"
version = "1.4.2"
[steps.deps]
inputs = ["deps.lock"]
run = "mkdir -p vendor/empty; cat deps.lock deps.lock > vendor/lib.txt; ln -s lib.txt vendor/link"
outputs = ["vendor"]
[steps.compile]
inputs = ["shop.c"]
run = "cc -static -O1 -o shop shop.c"
outputs = ["shop"]
[artifacts.shop]
kind = "image"
from = ["deps", "compile"]
files = ["vendor", { path = "shop", dest = "/usr/bin/shop" }]
base = "scratch"
entrypoint = ["/usr/bin/shop"]
workdir = "/srv"
env = { MODE = "prod" }
user = "1000:1000"
labels = { team = "shop" }
ports = [8080]
"#;

fn source(says: &str) -> String {
    format!("#include <stdio.h>\nint main(void) {{ puts(\"{says}\"); return 0; }}\n")
}

fn shop(lock: &str, says: &str) -> tempfile::TempDir {
    project(&[("kiln.toml", SHOP), ("deps.lock", lock), ("shop.c", &source(says))])
}

/// An OCI layout on the disk.
struct Layout {
    dir: std::path::PathBuf,
    manifest: Value,
    config: Value,
    digest: String,
}

impl Layout {
    fn read(dir: &Path) -> Self {
        let json = |path: &str| -> Value { serde_json::from_slice(&std::fs::read(dir.join(path)).unwrap()).unwrap() };
        let blob = |digest: &Value| json(&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/")));
        let index = json("index.json");
        let digest = index["manifests"][0]["digest"].clone();
        let manifest = blob(&digest);
        let config = blob(&manifest["config"]["digest"]);
        Self { dir: dir.to_owned(), manifest, config, digest: digest.as_str().unwrap().to_owned() }
    }

    fn of(project: &Path) -> Self {
        Self::read(&project.join("kiln-out/shop"))
    }

    fn layers(&self) -> Vec<String> {
        let layers = self.manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// Each entry of a layer: kind and mode, owner, and content or target.
    fn entries(&self, layer: usize) -> BTreeMap<String, String> {
        let path = self.dir.join("blobs").join(self.layers()[layer].replace(':', "/"));
        let listed = std::process::Command::new("tar").arg("-tvzf").arg(path).arg("--numeric-owner").output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[5].to_owned(), format!("{} {} {}", words[0], words[1], words[3]))
        };
        text.lines().map(line).collect()
    }
}

#[track_caller]
fn refused(built: &Built, words: &[&str]) {
    assert_eq!(built.0.code, 1, "expected the project's own failure, found {:?}", built.0);
    for word in words {
        assert!(built.message().contains(word), "expected `{word}` in: {}", built.message());
    }
}

#[test]
fn each_steps_files_are_a_layer_and_a_source_edit_changes_only_its_own() {
    let farm = Farm::shared();
    let dir = shop("zlib 1.3\n", "one");
    let built = farm.build(dir.path(), &[]).well();
    let first = Layout::of(dir.path());
    assert_eq!(built.of_type("artifact")[0]["kind"], "image");
    assert_eq!(format!("sha256:{}", built.of_type("artifact")[0]["digest"].as_str().unwrap()), first.digest);
    let deps = first.entries(0);
    assert_eq!(deps["srv/vendor/lib.txt"], "-rw-r--r-- 0/0 2000-01-01", "{deps:?}");
    assert_eq!(deps["srv/vendor/empty/"], "drwxr-xr-x 0/0 2000-01-01", "{deps:?}");
    assert_eq!(first.entries(1)["usr/bin/shop"], "-rwxr-xr-x 0/0 2000-01-01");
    let run = &first.config["config"];
    assert_eq!((&run["Entrypoint"][0], &run["WorkingDir"]), (&"/usr/bin/shop".into(), &"/srv".into()));
    assert_eq!((&run["Env"][0], &run["User"]), (&"MODE=prod".into(), &"1000:1000".into()));
    assert!(run["ExposedPorts"]["8080/tcp"].is_object() && run["Labels"]["team"] == "shop");

    write(dir.path(), "shop.c", &source("two"));
    farm.build(dir.path(), &[]).well();
    let second = Layout::of(dir.path());
    assert_eq!(first.layers()[0], second.layers()[0], "expected the dependencies' layer to be unchanged");
    assert_ne!(first.layers()[1], second.layers()[1]);
}

#[test]
fn the_same_sources_give_the_same_digest_on_another_farm() {
    let one = shop("a\n", "same");
    kiln_harness::commit(one.path());
    let two = tempfile::tempdir().unwrap();
    kiln_harness::copy(one.path(), two.path());
    Farm::shared().build(one.path(), &[]).well();
    Farm::start(&["other"]).build(two.path(), &[]).well();
    assert_eq!(Layout::of(one.path()).digest, Layout::of(two.path()).digest);
}

#[test]
fn what_cannot_be_in_an_image_is_refused_in_words() {
    let farm = Farm::shared();
    let build = |replace: &[(&str, &str)]| {
        let config = replace.iter().fold(SHOP.to_owned(), |config, (from, to)| config.replace(from, to));
        let dir = project(&[("kiln.toml", &config), ("deps.lock", "x\n"), ("shop.c", &source("x"))]);
        farm.build(dir.path(), &[])
    };
    let twice = build(&[("dest = \"/usr/bin/shop\"", "dest = \"/srv/vendor/lib.txt\"")]);
    refused(&twice, &["`srv/vendor/lib.txt` occurs twice in the tree"]);
    let leaving = build(&[("ln -s lib.txt", "ln -s ../../../etc/passwd")]);
    refused(&leaving, &["`/srv/vendor/link`", "leaves the image's root"]);
    let dynamic = build(&[("cc -static", "cc")]);
    refused(
        &dynamic,
        &["`usr/bin/shop` needs the shared library `libc.so.6`", "link it statically, or choose a `base`"],
    );
    let other = "cc -static -O1 -o shop shop.c && printf '\\\\267' | dd of=shop bs=1 seek=18 conv=notrunc status=none";
    let other = if cfg!(target_arch = "x86_64") { other } else { &other.replace("267", "076") };
    let foreign = build(&[("cc -static -O1 -o shop shop.c", other)]);
    refused(&foreign, &["artifact `shop` would not run on its target", "`usr/bin/shop` is for"]);
    for (dest, words) in [("../x", "leaves the tree by `..`"), ("/a/../../x", "leaves the tree by `..`")] {
        let outside = build(&[("dest = \"/usr/bin/shop\"", &format!("dest = \"{dest}\""))]);
        assert!(outside.0.code == 2 && outside.0.err.contains(words), "expected `{words}`, found {:?}", outside.0);
    }
    let typo = build(&[("\"scratch\"", "\"Debian:12\"")]);
    assert!(typo.0.code == 2 && typo.0.err.contains("repositories are lower case"), "{:?}", typo.0);
}

/// A farm whose builders may use base images of this machine.
fn with_local_bases() -> &'static Farm {
    static FARM: std::sync::OnceLock<Farm> = std::sync::OnceLock::new();
    FARM.get_or_init(|| Farm::with(&["--allow-registry", "127.0.0.0/8"], &["one"]))
}

/// `kiln build --push` with these credentials.
fn push(farm: &Farm, dir: &Path, to: &str, docker_config: &Path, more: &[&str]) -> Built {
    let mut command = farm.build_command(dir, &["--push", to]);
    command.args(more).env("DOCKER_CONFIG", docker_config);
    Built(Ran::from(command))
}

#[test]
fn a_push_sends_what_is_missing_and_moves_no_tag_unasked() {
    let Some(registry) = Registry::start() else { return };
    let (farm, nobody) = (Farm::shared(), tempfile::tempdir().unwrap());
    let dir = shop("pushed\n", "one");
    let to = format!("{}/team/shop", registry.name);
    let first = push(farm, dir.path(), &to, nobody.path(), &[]).well();
    let pushed = &first.of_type("pushed")[0];
    assert_eq!(pushed["reference"], format!("{to}:1.4.2"), "expected the version as the tag");
    assert!(!dir.path().join("kiln-out/shop").exists(), "expected what is pushed not to be downloaded");
    assert!(dir.path().join("kiln-out/shop.provenance.json").exists());
    if has("skopeo") {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--tls-verify=false", &format!("docker://{to}:1.4.2")]);
        assert!(kiln_harness::registry::output(&mut skopeo).contains(pushed["digest"].as_str().unwrap()));
    }
    let list = format!("{to}:sha256-{}", pushed["digest"].as_str().unwrap().trim_start_matches("sha256:"));
    if has("skopeo") {
        let raw = Command::new("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{list}")])
            .output();
        let index: Value = serde_json::from_slice(&raw.unwrap().stdout).unwrap();
        let kinds: Vec<&str> =
            index["manifests"].as_array().unwrap().iter().map(|one| one["artifactType"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "application/vnd.in-toto+json",
                "application/vnd.cyclonedx+json",
                "application/vnd.kiln.checksums.v1",
                "application/vnd.dev.sigstore.bundle.v0.3+json",
                "application/vnd.dev.sigstore.bundle.v0.3+json",
            ],
            "expected provenance, SBOM and checksums to be pushed too, and what is signed of them"
        );
    }
    let again = push(farm, dir.path(), &to, nobody.path(), &[]).well();
    assert_eq!(again.of_type("pushed")[0]["bytes_sent"], 0);

    write(dir.path(), "shop.c", &source("two"));
    let taken = push(farm, dir.path(), &to, nobody.path(), &[]);
    assert!(taken.0.code == 2 && taken.0.err.contains("already exists and is another image"), "{:?}", taken.0);
    let moved = push(farm, dir.path(), &to, nobody.path(), &["--push-over"]).well();
    assert_ne!(moved.of_type("pushed")[0]["digest"], pushed["digest"]);
    let elsewhere = push(farm, dir.path(), &format!("{to}:next"), nobody.path(), &[]).well();
    assert_eq!(elsewhere.of_type("pushed")[0]["bytes_sent"], 0, "expected its blobs to exist already");
}

#[test]
fn binaries_are_pushed_as_artifacts() {
    let Some(registry) = Registry::start() else { return };
    if !has("skopeo") {
        return;
    }
    let config = "name = \"tool\"\nversion = \"2\"\n[steps.s]\nrun = \"echo data > tool\"\noutputs = [\"tool\"]\n\
                  [artifacts.tool]\nfrom = \"s\"\nfiles = \"tool\"\n";
    let dir = project(&[("kiln.toml", config)]);
    let to = format!("{}/tools/tool", registry.name);
    push(Farm::shared(), dir.path(), &to, dir.path(), &[]).well();
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{to}:2")]);
    let manifest: Value = serde_json::from_str(&kiln_harness::registry::output(&mut skopeo)).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.kiln.artifact.v1");
    let layer = &manifest["layers"][0];
    assert_eq!(layer["annotations"]["org.opencontainers.image.title"], "tool");
    let blob = format!("http://{}/v2/tools/tool/blobs/{}", registry.name, layer["digest"].as_str().unwrap());
    assert_eq!(output("curl", &["-sf", &blob], dir.path()), "data\n");
}

#[test]
fn a_registry_with_a_login_and_tls_takes_what_docker_logged_in_for() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (certificate, secret) = (key.cert.pem(), key.signing_key.serialize_pem());
    let setup = Setup { login: Some(("ann", "secret")), tls: Some((&certificate, &secret)), ..Setup::default() };
    let Some(registry) = Registry::with(&setup) else { return };
    let (farm, dir, config) = (Farm::shared(), shop("login\n", "x"), tempfile::tempdir().unwrap());
    let to = format!("{}/shop:1", registry.name);
    let authority = registry.dir.path().join("tls.crt");
    let attempt = || push_trusting(farm, dir.path(), &to, config.path(), &authority);
    let untrusted = push(farm, dir.path(), &to, config.path(), &[]);
    assert!(untrusted.0.code == 2 && untrusted.0.err.contains("untrusted certificate"), "{:?}", untrusted.0);
    let nobody = attempt();
    assert!(nobody.0.code == 2 && nobody.0.err.contains("requires credentials"), "{:?}", nobody.0);
    // A credential helper as Docker calls it.
    let helper = config.path().join("docker-credential-test");
    std::fs::write(&helper, "#!/bin/sh\ncat > /dev/null\necho '{\"Username\":\"ann\",\"Secret\":\"secret\"}'\n")
        .unwrap();
    let executable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&helper, executable).unwrap();
    std::fs::write(config.path().join("config.json"), "{\"credsStore\":\"test\"}").unwrap();
    attempt().well();
}

fn push_trusting(farm: &Farm, dir: &Path, to: &str, docker_config: &Path, authority: &Path) -> Built {
    let mut command = farm.build_command(dir, &["--push", to]);
    let path = std::env::var("PATH").unwrap();
    command
        .env("DOCKER_CONFIG", docker_config)
        .env("SSL_CERT_FILE", authority)
        .env("PATH", format!("{}:{path}", docker_config.display()));
    Built(Ran::from(command))
}

#[test]
fn docker_runs_what_was_loaded_and_what_it_pulled() {
    let (Some(docker), Some(registry)) = (Engine::bare(), Registry::start()) else { return };
    let (farm, dir) = (Farm::shared(), shop("docker\n", "hello from kiln"));
    let mut command = farm.build_command(dir.path(), &["--load"]);
    command.env("DOCKER_HOST", &docker.host);
    let loaded = Built(Ran::from(command)).well();
    assert_eq!(loaded.of_type("loaded")[0]["reference"], "shop:1.4.2");
    let run = |image: &str| docker.ok(&["run", "--rm", "--network", "none", image]);
    assert_eq!(run("shop:1.4.2"), "hello from kiln");

    let to = format!("{}/shop:1", registry.name);
    let pushed = push(farm, dir.path(), &to, dir.path(), &[]).well();
    let by_digest = format!("{}/shop@{}", registry.name, pushed.of_type("pushed")[0]["digest"].as_str().unwrap());
    docker.ok(&["rmi", "shop:1.4.2"]);
    docker.ok(&["pull", "--quiet", &by_digest]);
    assert_eq!(run(&by_digest), "hello from kiln");

    let mut command = farm.build_command(dir.path(), &["--load"]);
    command.env("DOCKER_HOST", format!("unix://{}", dir.path().join("shop.c").display()));
    let none = Ran::from(command);
    assert!(none.code == 2 && none.err.contains("cannot load `shop:"), "{none:?}");
}

/// A farm with a native worker and an emulated arm64 worker; `None` if this machine cannot run arm64.
fn farm_of_two_architectures() -> Option<Farm> {
    let root = match kiln_harness::arm64::root() {
        Ok(root) => root,
        Err(missing) => {
            kiln_harness::cannot_run(&missing);
            return None;
        }
    };
    let farm = Farm::start(&["native"]);
    farm.start_worker_with("emulated", &["--root", root.to_str().unwrap()]);
    farm.wait_for_worker("emulated");
    Some(farm)
}

const BOTH: [&str; 3] = ["--platform", "linux/amd64,linux/arm64", "--allow-emulation"];

#[test]
fn a_program_of_the_other_machine_is_refused_in_the_image_that_it_does_not_run_in() {
    let Some(farm) = farm_of_two_architectures() else { return };
    // A committed program that was built for another architecture.
    let config = SHOP.replace("cc -static", "cp vendored shop; : cc -static").replace("\"shop.c\"", "\"vendored\"");
    let dir = project(&[("kiln.toml", &config), ("deps.lock", "x\n"), ("shop.c", &source("x"))]);
    let built = Command::new("cc").args(["-static", "-o", "vendored", "shop.c"]).current_dir(dir.path()).status();
    assert!(built.is_ok_and(|status| status.success()), "expected `cc` to make a static program");
    let built = farm.build(dir.path(), &BOTH);
    assert_eq!(built.0.code, 1, "expected the arm64 image to be refused: {:?}", built.0);
    let message = |platform: &str| {
        let targets = built.of_type("target_finished");
        let target =
            targets.iter().find(|target| target["platform"] == platform).expect("expected an end of each platform");
        (target["status"].as_str().unwrap().to_owned(), target["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(message("linux/amd64").0, "success");
    let (status, words) = message("linux/arm64");
    assert_eq!(status, "failed");
    assert!(words.contains("shop") && words.contains("x86-64") && words.contains("arm64"), "{words}");
}

#[test]
fn an_image_for_two_platforms_is_one_index_that_docker_runs_on_each() {
    let (Some(docker), Some(registry)) = (Engine::bare(), Registry::start()) else { return };
    let Some(farm) = farm_of_two_architectures() else { return };
    let dir = shop("both\n", "hello from each");
    let to = format!("{}/shop:both", registry.name);
    let pushed = push(&farm, dir.path(), &to, dir.path(), &BOTH).well();
    let digest = pushed.of_type("pushed")[0]["digest"].as_str().unwrap().to_owned();
    if has("skopeo") {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{to}")]);
        let index: Value = serde_json::from_str(&kiln_harness::registry::output(&mut skopeo)).unwrap();
        let manifests = index["manifests"].as_array().unwrap().iter();
        let architectures: Vec<&str> = manifests.map(|one| one["platform"]["architecture"].as_str().unwrap()).collect();
        assert_eq!(architectures, ["amd64", "arm64"], "{index}");
    }
    for platform in ["linux/amd64", "linux/arm64"] {
        docker.ok(&["pull", "--quiet", "--platform", platform, &to]);
        let architecture = docker.ok(&["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", &to]);
        assert_eq!(architecture.trim(), platform);
        let said = docker.ok(&["run", "--rm", "--network", "none", "--platform", platform, &to]);
        assert_eq!(said, "hello from each", "{platform}");
    }
    let kept = farm.build(dir.path(), &BOTH).well();
    let joined = dir.path().join("kiln-out/shop");
    assert_eq!(kept.of_type("joined")[0]["digest"], digest.as_str(), "expected the index that was pushed");
    let oci = format!("oci:{}", joined.display());
    for architecture in ["amd64", "arm64"].into_iter().filter(|_| has("skopeo")) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--override-arch", architecture, &oci]);
        let inspected: Value = serde_json::from_str(&kiln_harness::registry::output(&mut skopeo)).unwrap();
        assert_eq!(inspected["Architecture"], architecture, "expected the layout to hold both platforms");
    }
    let again = push(&farm, dir.path(), &to, dir.path(), &BOTH).well();
    assert_eq!(again.of_type("pushed")[0]["digest"], digest.as_str(), "expected the same index of the same sources");
}

const SERVICE: &str = r#"
name = "service"
version = "1"
[steps.deps]
inputs = ["requirements.txt"]
run = "python3 -m pip install -q --disable-pip-version-check --no-compile --target vendor -r requirements.txt"
outputs = ["vendor"]
network = true
[steps.app]
inputs = ["app.py"]
run = "python3 -m py_compile app.py; mkdir out; cp app.py out"
outputs = ["out"]
[artifacts.service]
kind = "image"
from = ["deps", "app"]
files = ["vendor", { path = "out", dest = "." }]
base = "BASE"
entrypoint = ["/usr/bin/python3", "app.py"]
workdir = "/srv"
env = { PYTHONPATH = "/srv/vendor" }
"#;

const APP: &str = "import http.server, os, idna\n\
class Handler(http.server.BaseHTTPRequestHandler):\n    \
    def do_GET(self):\n        \
        self.send_response(200); self.end_headers(); self.wfile.write(idna.encode('ökonomie.example'))\n\
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n";

#[test]
fn a_python_service_on_a_base_from_a_registry_answers_from_docker() {
    let (Some(base), Some(docker), Some(registry)) = (debian_layout(), Engine::bare(), Registry::start()) else {
        return;
    };
    if !has("skopeo") {
        return;
    }
    let (farm, base_name) = (with_local_bases(), format!("{}/base/python:12", registry.name));
    let from = format!("oci:{}:12", base.display());
    let copy = |arguments: &[&str]| output("skopeo", &[&["copy", "--quiet"], arguments].concat(), base);
    copy(&["--dest-tls-verify=false", &from, &format!("docker://{base_name}")]);
    let service = |base: &str| {
        let config = SERVICE.replace("BASE", base);
        project(&[("kiln.toml", &config), ("requirements.txt", "idna==3.7\n"), ("app.py", APP)])
    };
    let dir = service(&base_name);
    let to = format!("{}/team/service:1", registry.name);
    let pushed = push(farm, dir.path(), &to, dir.path(), &[]).well();
    let sent = pushed.of_type("pushed")[0]["bytes_sent"].as_u64().unwrap();
    assert!(sent < 1 << 20, "expected the base's layer to be mounted, {sent} bytes were sent");
    let provenance = std::fs::read_to_string(dir.path().join("kiln-out/service.provenance.json")).unwrap();
    assert!(provenance.contains("base/python"), "{provenance}");
    let sbom = std::fs::read_to_string(dir.path().join("kiln-out/service.cdx.json")).unwrap();
    assert!(sbom.contains("pkg:pypi/idna@3.7"), "{sbom}");

    docker.ok(&["pull", "--quiet", &to]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port_is = format!("PORT={port}");
    docker.ok(&["run", "--detach", "--name", "service", "--network", "host", "--env", &port_is, &to]);
    let answer = kiln_harness::until("the service to answer", || {
        let logs = docker.docker(&["logs", "service"]);
        let errors = String::from_utf8_lossy(&logs.stderr);
        assert!(!errors.contains("Error"), "{errors}");
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    });
    assert!(answer.ends_with("xn--konomie-80a.example"), "{answer}");
    docker.ok(&["rm", "--force", "service"]);

    // The same base as a layout and in the format of `docker save`: the files are the same, so the layers on top are
    // too.
    let layers = |dir: &Path| Layout::read(&dir.join("kiln-out/service")).layers();
    let by_reference = service(&base_name);
    farm.build(by_reference.path(), &[]).well();
    let by_layout = service("./base");
    kiln_harness::copy(base, &by_layout.path().join("base"));
    farm.build(by_layout.path(), &[]).well();
    assert_eq!(layers(by_layout.path()), layers(by_reference.path()));
    let by_archive = service("./base.tar");
    copy(&[&from, &format!("docker-archive:{}:base:12", by_archive.path().join("base.tar").display())]);
    farm.build(by_archive.path(), &[]).well();
    assert_eq!(
        layers(by_archive.path()),
        layers(by_reference.path()),
        "expected a plain tar to be compressed like the base"
    );
}

#[test]
fn a_base_that_cannot_be_is_refused_before_anything_is_built_for_nothing() {
    let Some(registry) = Registry::start() else { return };
    let (farm, nobody) = (with_local_bases(), tempfile::tempdir().unwrap());
    let dir = shop("base\n", "base");
    push(farm, dir.path(), &format!("{}/team/base:12", registry.name), nobody.path(), &[]).well();
    let build = |base: &str, first: &str| {
        let config =
            SHOP.replace("\"scratch\"", &format!("\"{base}\"")).replace("cc -static", &format!("{first} cc -static"));
        let dir = project(&[("kiln.toml", &config), ("deps.lock", "x\n"), ("shop.c", &source("x"))]);
        farm.build(dir.path(), &[])
    };
    refused(&build(&format!("{}/team/base:11", registry.name), "sleep 600;"), &["did you mean the tag `12`?"]);
    build(&format!("{}/team/base:12", registry.name), "").well();
    refused(&build("./nowhere.tar", ""), &["there is no `nowhere.tar`"]);
}
