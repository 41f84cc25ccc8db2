//! The files that a platform team copies from `deploy/`, run as its pages say.

#![allow(clippy::unwrap_used)]

mod admission;
mod compose;
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
