//! The files that a platform team copies from `deploy/`, run as its pages say.

#![allow(clippy::unwrap_used)]

mod haproxy;
mod helm;
mod kubernetes;
mod options;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_harness::bases::debian;
use kiln_harness::engine::Engine;
use kiln_harness::guarded::{local, well};
use kiln_harness::{Lasting, Ran, cannot_run, project};

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

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn deploy() -> PathBuf {
    root().join("deploy")
}

/// The output of a command, which must succeed. `None`, with a message, if it is not installed.
#[track_caller]
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => {
            cannot_run(&format!("`{program}`: {error}"));
            return None;
        }
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "expected `{program} {arguments:?}` to work: {out}{err}");
    Some(format!("{out}{err}"))
}

/// The commands of a page: its first block of shell commands that contains these words.
fn block(page: &str, words: &str) -> String {
    let text = std::fs::read_to_string(deploy().join(page)).unwrap();
    let mut blocks = text.split("```sh\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0);
    blocks.find(|block| block.contains(words)).expect("expected the page to have such a block").to_owned()
}

/// The farm of a page, stopped at the end of its test.
struct Composed<'a> {
    docker: &'a Engine,
    name: String,
}

impl Composed<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(root()).stdin(Stdio::null());
        command.env("DOCKER_HOST", &self.docker.host).env("COMPOSE_PROJECT_NAME", &self.name);
        command.env("COMPOSE_FILE", deploy().join("compose.yaml")).env_remove("KILN_FARM");
        command
    }
}

impl Drop for Composed<'_> {
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
    let Some(docker) = Engine::bare() else { return };
    let Some(base) = debian() else { return };
    if printed("docker-compose", &["version"]).is_none() {
        return;
    }
    docker.ok(&["import", base.to_str().unwrap(), "kiln-base:local"]);
    let dir = tempfile::tempdir().unwrap();
    if stripped(dir.path()).is_none() {
        return;
    }
    // Debian's registry, as its own image; Debian's configuration admits nobody before a password exists.
    let dockerfile = "FROM kiln-base:local\nCOPY registry.yml /\nCMD docker-registry serve /registry.yml\n";
    let settings =
        "version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/docker-registry}}\nhttp: {addr: ':5000'}\n";
    let made = project(&[("Dockerfile", dockerfile), ("registry.yml", settings)]);
    docker.ok(&["build", "--network", "none", "-q", "-t", "kiln-registry:local", made.path().to_str().unwrap()]);
    let source = project(&[("kiln.toml", PROJECT)]);
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let farm = Composed { docker: &docker, name: format!("kiln{}", std::process::id()) };
    let stage = dir.path().join("stage");
    let (farm_port, registry_port, metrics_port) = (port(), port(), port());
    let (farm_url, registry) = (format!("https://localhost:{farm_port}"), format!("localhost:{registry_port}"));
    let mut page = farm.command("bash");
    page.args(["-euo", "pipefail", "-c", &block("compose.md", "docker-compose up")])
        .env("KILN_BINARIES", dir.path())
        .env("KILN_STAGE", &stage)
        .env("KILN_PROJECT", source.path())
        .env("KILN_PACKAGES", "")
        .env("KILN_BUILD", "--network none --build-arg BASE=kiln-base:local --build-arg PACKAGES=")
        .env("KILN_REDIS_IMAGE", "kiln-base:local")
        .env("KILN_REGISTRY_IMAGE", "kiln-registry:local")
        .env("KILN_PORT", &farm_port)
        .env("KILN_REGISTRY_PORT", &registry_port)
        .env("KILN_METRICS_PORT", &metrics_port)
        .env("XDG_CACHE_HOME", dir.path().join("cache"));
    let mut patient = Command::new("timeout");
    patient.arg("180").arg(page.get_program()).args(page.get_args()).current_dir(root()).stdin(Stdio::null());
    patient.envs(page.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("KILN_FARM");
    let ran = Ran::from(patient);
    assert_eq!(ran.code, 0, "expected the page's commands to work:\n{}\n{}", ran.out, ran.err);
    let unpacked = kiln_harness::unpack(&stage.join("out"));
    let out = kiln_harness::find(unpacked.path(), "out").unwrap();
    assert_eq!(std::fs::read_to_string(out).unwrap(), "made by 1000\n");
    assert!(ran.out.ends_with("hello from the farm\nhello\n"), "expected the image's content: {}", ran.out);
    pushed_images_are_bases_of_others(&registry, &farm_url, dir.path());
    assert_eq!(kiln_harness::http::get(&format!("127.0.0.1:{metrics_port}"), "/readyz").0, 200);
    // The worker has no rights that an action could acquire.
    let worker = format!("{}_worker_1", farm.name);
    let status = docker.ok(&["exec", &worker, "sh", "-c", "cat /proc/1/status"]);
    for line in ["Uid:\t10001\t10001\t10001\t10001", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "expected `{line}` of the worker's process, found:\n{status}");
    }
    // Nor access to Redis, which would accept results from anybody.
    let finds = |name: &str| docker.docker(&["exec", &worker, "getent", "hosts", name]).status.success();
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

#[test]
fn images_trust_the_authorities_they_are_given_and_have_git_for_webhooks() {
    let Some(docker) = Engine::bare() else { return };
    let Some(base) = debian() else { return };
    docker.ok(&["import", base.to_str().unwrap(), "kiln-base:local"]);
    let dir = project(&[("kiln", ""), ("kiln-coordinator", ""), ("kiln-worker", ""), ("worker-entrypoint", "")]);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca =
        rcgen::CertificateParams::new(vec!["company.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let file = deploy().join("Dockerfile");
    for (target, says) in [("prebuilt-coordinator", "git version"), ("prebuilt-worker", "")] {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &docker.host).args([
            "build",
            "-q",
            "--network",
            "none",
            "--target",
            target,
            "-t",
            target,
        ]);
        command.args([
            "--build-arg",
            "BASE=kiln-base:local",
            "--build-arg",
            "PACKAGES=",
            "--build-arg",
            &format!("CA={ca}"),
        ]);
        let ran = Ran::from({
            command.arg("-f").arg(&file).arg(dir.path());
            command
        });
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        let look = "cat /etc/ssl/certs/ca-certificates.crt; git --version; id -u";
        let found = docker.ok(&["run", "--rm", "--network", "none", "--entrypoint", "sh", target, "-c", look]);
        assert!(found.contains(ca.trim()), "expected the authority among those of `{target}`");
        assert!(found.contains(says) && found.ends_with("10001"), "{target}: {}", &found[found.len() - 100..]);
    }
    // The image itself installs what this test's base already contains.
    let text = std::fs::read_to_string(&file).unwrap();
    let coordinator = text.split("AS coordinator-base").nth(1).unwrap().split("FROM ").next().unwrap();
    assert!(coordinator.contains("ARG PACKAGES=\"ca-certificates git\""), "expected git, which webhooks need");
}

#[test]
fn units_are_sound_and_no_more_exposed_than_they_say() {
    let dir = tempfile::tempdir().unwrap();
    // The coordinator loses all privileges; a worker's actions inherit its restrictions, and `kiln-worker.service`
    // explains what remains.
    for (unit, most) in [("kiln-coordinator", 15), ("kiln-worker", 76)] {
        let text = std::fs::read_to_string(deploy().join("systemd").join(format!("{unit}.service"))).unwrap();
        // The program need not be installed on this machine.
        let text = text.replace(&format!("/usr/local/bin/{unit} "), "/bin/true ");
        let file = dir.path().join(format!("{unit}.service"));
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let Some(said) = printed("systemd-analyze", &["verify", "--man=no", file]) else { return };
        assert!(!said.contains(unit), "expected no complaint about the unit: {said}");
        let threshold = format!("--threshold={most}");
        printed("systemd-analyze", &["security", "--offline=true", "--no-pager", &threshold, file]);
    }
}

/// The command of a unit's setting, with the programs that were built and the files in `dir`.
fn commands(unit: &str, setting: &str, dir: &Path) -> Vec<Command> {
    let text = std::fs::read_to_string(deploy().join("systemd").join(unit)).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_kiln")).parent().unwrap();
    let own =
        text.replace("/usr/local/bin", built.to_str().unwrap()).replace("/etc/kiln", dir.join("etc").to_str().unwrap());
    let lines = own.lines().filter_map(|line| line.strip_prefix(&format!("{setting}=")));
    let command = |line: &str| {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env_remove("KILN_LOG").stdin(Stdio::null());
        command
    };
    lines.map(command).collect()
}

#[test]
fn units_run_with_the_files_beside_them_and_a_reload_checks_these_first() {
    let built = Path::new(env!("CARGO_BIN_EXE_kiln")).parent().unwrap();
    if !built.join("kiln-coordinator").exists() || !built.join("kiln-worker").exists() {
        return cannot_run("`cargo test --workspace` builds `kiln-coordinator` and `kiln-worker`");
    }
    let dir = tempfile::tempdir().unwrap();
    let (etc, lib) = (dir.path().join("etc"), dir.path().join("lib"));
    let join = well(local(&["farm", "init", etc.to_str().unwrap(), "--host", "127.0.0.1"]));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let install = |name: &str, more: &str| {
        let text = std::fs::read_to_string(deploy().join("systemd").join(name)).unwrap();
        let text = text.replace("/etc/kiln", etc.to_str().unwrap()).replace("/var/lib/kiln", lib.to_str().unwrap());
        let text = text
            .replace("0.0.0.0:8980", &format!("127.0.0.1:{port}"))
            .replace("farm.example:8980", &format!("127.0.0.1:{port}"));
        std::fs::write(etc.join(name), format!("{text}{more}")).unwrap();
    };
    install("coordinator.toml", "");
    install("worker.toml", "docker = \"off\"\n");
    std::fs::write(etc.join("join"), join).unwrap();
    let start = |unit: &str, words: &str| {
        let mut process = Lasting::start(commands(unit, "ExecStart", dir.path()).remove(0));
        process.line_with(words);
        process
    };
    let mut coordinator = start("kiln-coordinator.service", "ready");
    let mut worker = start("kiln-worker.service", "registered");
    let reload = |unit: &str, process: &Lasting| {
        let [check, kill] = &mut commands(unit, "ExecReload", dir.path())[..] else { panic!("expected two commands") };
        let checked = check.output().unwrap();
        if !checked.status.success() {
            return Err(String::from_utf8_lossy(&checked.stderr).into_owned());
        }
        let arguments: Vec<String> =
            kill.get_args().map(|word| word.to_str().unwrap().replace("$MAINPID", &process.id().to_string())).collect();
        assert!(Command::new(kill.get_program()).args(arguments).status().unwrap().success());
        Ok(())
    };
    install("coordinator.toml", "keep-builds = \"7\"\n");
    reload("kiln-coordinator.service", &coordinator).unwrap();
    assert!(coordinator.line_with("takes effect after a restart").contains("`keep-builds`"));
    install("worker.toml", "docker = \"off\"\nlabel = [\"disk=ssd\"]\n");
    reload("kiln-worker.service", &worker).unwrap();
    assert!(worker.line_with("reloaded the configuration").contains("label"));
    worker.line_with("registered");
    install("coordinator.toml", "quotas = \"none.toml\"\n");
    let error = reload("kiln-coordinator.service", &coordinator).unwrap_err();
    assert!(error.contains("none.toml"), "{error}");
}

#[test]
fn a_worker_with_no_more_capabilities_than_its_unit_grants_has_its_sandbox() {
    if !nix::unistd::geteuid().is_root() {
        return cannot_run("the unit's worker is root");
    }
    let unit = std::fs::read_to_string(deploy().join("systemd/kiln-worker.service")).unwrap();
    let granted = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let granted: String = granted.split(' ').map(|name| format!(",+{}", name[4..].to_lowercase())).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("setpriv");
    command
        .args([&format!("--bounding-set=-all{granted}"), "--inh-caps=-all", "--no-new-privs", "--pdeathsig=KILL"])
        .arg(env!("CARGO_BIN_EXE_kiln"))
        .args(["worker", "--coordinator", "http://127.0.0.1:9", "--name", "bounded", "--sandbox", "required"])
        .args(["--parent", &std::process::id().to_string(), "--state-dir"])
        .arg(dir.path())
        .env("KILN_LOG", "info");
    Lasting::start(command).line_with("actions run in a sandbox");
}
