//! Debian packages: made, installed in a Debian of their own, used, upgraded while a build runs, removed and purged.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_harness::bases::debian;
use kiln_harness::machine::Machine;
use kiln_harness::{Lasting, Ran, cannot_run, has, until};

const PROGRAMS: [&str; 3] = ["kiln", "kiln-coordinator", "kiln-worker"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[track_caller]
fn well(mut command: Command) -> Ran {
    command.stdin(Stdio::null());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

/// A directory in which packages can be made: the programs of this build in the place of a release's.
fn workshop() -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for path in ["out/bin", "out/pages/completions", "out/pages/man", "deploy"] {
        std::fs::create_dir_all(at(path)).unwrap();
    }
    let built = Path::new(env!("CARGO_BIN_EXE_kiln")).parent().unwrap();
    for program in PROGRAMS {
        if !built.join(program).exists() {
            cannot_run(&format!("`{program}` is not built; `cargo test --workspace` builds it"));
            return None;
        }
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(at("out/bin").join(program)).arg(built.join(program));
        well(strip);
    }
    for shell in ["bash", "zsh", "fish"] {
        let mut completions = Command::new(built.join("kiln"));
        completions.args(["completions", shell]);
        std::fs::write(at("out/pages/completions").join(shell), well(completions).out).unwrap();
    }
    let mut pages = Command::new(built.join("kiln"));
    pages.arg("manual-pages").arg(at("out/pages/man"));
    well(pages);
    for path in ["LICENSE", "CHANGELOG.md", "deploy/packages", "deploy/systemd"] {
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(repository().join(path)).arg(at(path));
        well(copy);
    }
    Some(dir)
}

/// Makes the packages of a version; where they are.
fn make(workshop: &Path, version: &str) -> Vec<PathBuf> {
    let mut command = Command::new("deploy/packages/deb");
    // What is packed better takes minutes.
    command.args([version, "amd64"]).current_dir(workshop).env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    well(command);
    let mut made: Vec<PathBuf> =
        std::fs::read_dir(workshop.join("out/deb")).unwrap().map(|entry| entry.unwrap().path()).collect();
    made.sort();
    made
}

/// A Debian in which packages are installed.
struct Root {
    machine: Machine,
}

impl Root {
    fn new() -> Option<Self> {
        let machine = Machine::of(debian()?);
        std::fs::create_dir(machine.at("debs")).unwrap();
        Some(Self { machine })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.machine.at(path)
    }

    /// This command in it, as a user.
    fn command(&self, user: &str, script: &str) -> Command {
        self.machine.command(user, script)
    }

    #[track_caller]
    fn runs(&self, script: &str) -> Ran {
        well(self.command("root", script))
    }

    /// Gives packages to `dpkg`.
    #[track_caller]
    fn install(&self, packages: &[PathBuf]) -> String {
        for package in packages {
            std::fs::copy(package, self.at("debs").join(package.file_name().unwrap())).unwrap();
        }
        let ran = self.runs("dpkg --install /debs/*.deb && rm /debs/*.deb");
        format!("{}{}", ran.out, ran.err)
    }

    /// Starts a service as its unit says, as this user.
    fn start(&self, service: &str, user: &str, until: &str) -> Lasting {
        let unit = std::fs::read_to_string(self.at(&format!("usr/lib/systemd/system/{service}.service"))).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        assert!(
            self.at(line.split(' ').next().unwrap()).exists(),
            "expected the unit to start what is installed: {line}"
        );
        let state = unit.lines().find_map(|line| line.strip_prefix("StateDirectory=")).unwrap();
        self.runs(&format!("install -d -m 0700 -o {user} /var/lib/{state}"));
        let mut process = Lasting::start(self.command(user, &format!("exec {line}")));
        process.line_with(until);
        process
    }

    fn edit(&self, path: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.at(path)).unwrap();
        assert!(text.contains(from), "expected `{from}` in {text}");
        std::fs::write(self.at(path), text.replace(from, to)).unwrap();
    }
}

const PROJECT: &str = r#"
name = "slow"
[steps.work]
run = "echo begins; for i in 1 2 3 4 5 6; do sleep 0.5; done; echo made > out"
outputs = ["out"]
[artifacts.slow]
from = "work"
files = ["out"]
kind = "archive"
"#;

#[test]
fn packages_are_installed_used_upgraded_while_a_build_runs_removed_and_purged() {
    if !nix::unistd::geteuid().is_root() {
        return cannot_run("packages are installed by root");
    }
    if !has("dpkg-deb") {
        return;
    }
    let Some(root) = Root::new() else { return };
    let Some(workshop) = workshop() else { return };
    let first = make(workshop.path(), "1.0.0");
    let said = root.install(&first);
    assert!(
        said.contains("kiln farm init /etc/kiln") && said.contains("/etc/kiln/join"),
        "expected the next step: {said}"
    );
    assert_eq!(root.runs("dpkg --verify kiln kiln-coordinator kiln-worker").out, "");
    root.runs("test -s /usr/share/bash-completion/completions/kiln && zcat /usr/share/man/man1/kiln-build.1.gz | grep -q kiln");

    // As the messages say. The port is one that is free on this machine.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    root.runs("umask 077; kiln farm init /etc/kiln --host 127.0.0.1 > /etc/kiln/join && chown -R kiln /etc/kiln && chown root /etc/kiln/join");
    root.edit("etc/kiln/coordinator.toml", "0.0.0.0:8980", &format!("127.0.0.1:{port}"));
    root.edit("etc/kiln/worker.toml", "farm.example:8980", &format!("127.0.0.1:{port}"));
    let coordinator = root.start("kiln-coordinator", "kiln", "ready");
    let _worker = root.start("kiln-worker", "root", "registered");
    root.runs("cd /etc/kiln && kiln farm certificate ann --role builder --farm-dir /etc/kiln");
    std::fs::create_dir_all(root.at("project")).unwrap();
    std::fs::write(root.at("project/kiln.toml"), PROJECT).unwrap();
    let farm = format!(
        "--farm https://127.0.0.1:{port} --ca /etc/kiln/ca.pem --cert /etc/kiln/ann.pem --key /etc/kiln/ann.key"
    );
    let mut build = root.command("root", &format!("cd /project && exec kiln build {farm} --progress plain"));
    build.stdout(Stdio::from(std::fs::File::create(root.at("build.log")).unwrap()));
    build.stderr(Stdio::from(std::fs::File::create(root.at("build.err")).unwrap()));
    let mut build = build.spawn().unwrap();
    let log = || {
        std::fs::read_to_string(root.at("build.log")).unwrap() + &std::fs::read_to_string(root.at("build.err")).unwrap()
    };
    until("the step to run", || log().contains("begins").then_some(()));

    // Without systemd, the test restarts the coordinator as the package has systemd do it.
    let second = make(workshop.path(), "1.0.1");
    root.install(&second);
    drop(coordinator);
    let _coordinator = root.start("kiln-coordinator", "kiln", "ready");
    assert!(build.wait().unwrap().success(), "{}", log());
    root.runs("test -e /project/kiln-out");
    let kept = std::fs::read_to_string(root.at("etc/kiln/coordinator.toml")).unwrap();
    assert!(kept.contains(&port.to_string()), "expected an upgrade to leave the configuration alone: {kept}");
    assert_eq!(root.runs("dpkg-query -W -f '${Version}' kiln-worker").out, "1.0.1");
    let about = root.at("etc/kiln/coordinator.toml").metadata().unwrap();
    assert_eq!(about.mode() & 0o777, 0o640, "expected others not to read it");

    root.runs("dpkg --remove kiln-worker kiln-coordinator kiln");
    root.runs("test ! -e /usr/bin/kiln && test -e /etc/kiln/worker.toml && test -d /var/lib/kiln/coordinator");
    let purged = root.runs("dpkg --purge kiln-worker kiln-coordinator kiln");
    // What nobody can make again is kept, and the package says where it is.
    assert!(purged.out.contains("/var/lib/kiln/coordinator keeps"), "{purged:?}");
    root.runs("test ! -e /etc/kiln/worker.toml && test ! -e /var/lib/kiln/worker && test -d /var/lib/kiln/coordinator && test -e /etc/kiln/ca.pem");
}

#[test]
fn the_same_files_make_the_same_packages_and_a_version_is_debians() {
    if !has("dpkg-deb") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for path in ["out/bin", "out/pages/completions", "out/pages/man", "deploy"] {
        std::fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    for program in PROGRAMS {
        std::fs::write(dir.path().join("out/bin").join(program), program).unwrap();
    }
    for shell in ["bash", "zsh", "fish"] {
        std::fs::write(dir.path().join("out/pages/completions").join(shell), shell).unwrap();
    }
    std::fs::write(dir.path().join("out/pages/man/kiln.1"), "kiln").unwrap();
    for path in ["LICENSE", "CHANGELOG.md", "deploy/packages", "deploy/systemd"] {
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(repository().join(path)).arg(dir.path().join(path));
        well(copy);
    }
    let contents = |made: &[PathBuf]| made.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    let one = contents(&make(dir.path(), "0.3.0"));
    let mut age = Command::new("touch");
    age.args(["-d", "@1000000000"]).arg(dir.path().join("out/bin/kiln")).arg(dir.path().join("out/pages"));
    well(age);
    assert!(one == contents(&make(dir.path(), "0.3.0")), "expected no trace of when anything was made");
    for (version, debian) in
        [("v0.3.0", "0.3.0"), ("0.3.0-rc.1", "0.3.0~rc.1"), ("0.3.0-5-gabc1234", "0.3.0.5.gabc1234")]
    {
        let made = make(dir.path(), version);
        let name = made[0].file_name().unwrap().to_str().unwrap();
        assert_eq!(name, format!("kiln-coordinator_{debian}_amd64.deb"));
        let mut sound = Command::new("dpkg-deb");
        sound.arg("--field").arg(&made[0]).arg("Version");
        assert_eq!(well(sound).out.trim(), debian);
    }
    for wrong in [["abc", "amd64"], ["1.0", "riscv64"]] {
        let mut command = Command::new("deploy/packages/deb");
        command.args(wrong).current_dir(dir.path()).stdin(Stdio::null());
        let ran = Ran::from(command);
        assert!(ran.code == 1 && ran.err.contains("expected"), "{ran:?}");
    }
}

/// A copy of the repository, without what was compiled.
fn checkout() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut copy = Command::new("cp");
    copy.args(["-a", "-t"]).arg(dir.path());
    let entries = std::fs::read_dir(repository()).unwrap().map(|entry| entry.unwrap());
    copy.args(
        entries.filter(|entry| entry.file_name() != ".git" && entry.file_name() != "target").map(|entry| entry.path()),
    );
    well(copy);
    dir
}

#[test]
fn the_repository_has_a_plan_of_kiln_itself_for_both_architectures() {
    let dir = checkout();
    let mut plan = Command::new(env!("CARGO_BIN_EXE_kiln"));
    plan.args(["plan", "--json"]).current_dir(dir.path()).env_remove("KILN_FARM");
    let plan: serde_json::Value = serde_json::from_str(&well(plan).out).unwrap();
    let names =
        |what: &str| plan[what].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(names("targets"), ["amd64", "arm64"]);
    assert_eq!(names("steps"), ["fetch", "compile", "pages", "packages"]);
    assert_eq!(names("artifacts"), ["kiln", "kiln-client", "kiln-debug", "kiln-packages"]);
    // What fetches crates sees no source, so that an edit fetches nothing again.
    let inputs = plan["steps"][0]["inputs"].to_string();
    assert!(inputs.contains("**/Cargo.toml") && !inputs.contains(".rs"), "{inputs}");
}
