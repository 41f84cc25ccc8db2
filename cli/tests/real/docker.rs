//! A Docker Engine for one test, and a base image made by `mmdebstrap`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use kiln_images::image::{Added, Origin, Settings, assemble};
use kiln_images::layer::{Compression, compress};
use kiln_images::layout;
use kiln_images::platform::Platform;

use super::{Ran, cannot_run, until};

/// A `dockerd` that ends with its test.
pub struct Docker {
    dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Terminated, not killed: it then also stops its containerd.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Docker {
    /// `None`, with a message, if this machine cannot run one.
    pub fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            cannot_run("`dockerd` needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let log = std::fs::File::create(at("log")).unwrap();
        let child = Command::new("dockerd")
            .arg("--host")
            .arg(format!("unix://{}", at("docker.sock").display()))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            // Networks that a test creates must not overlap with others.
            .arg(format!(
                "--default-address-pool=base=10.{}.{}.0/20,size=24",
                128 + std::process::id() / 16 % 64,
                std::process::id() % 16 * 16
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let Ok(child) = child else {
            cannot_run("`dockerd` is not installed");
            return None;
        };
        let docker = Self { dir, child };
        until("dockerd to answer", || (docker.run(&["version"]).code == 0).then_some(()));
        Some(docker)
    }

    /// The value of `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("docker");
        command.args(arguments).env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.dir.path());
        Ran::from(command)
    }

    /// The same, which must succeed; returns its output.
    #[track_caller]
    pub fn well(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "docker {arguments:?}: {}{}", ran.out, ran.err);
        ran.out
    }
}

/// An OCI layout of a small Debian with Python, made once for all runs. `None`, with a message, if it cannot be made.
pub fn python_base() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    BASE.get_or_init(make_python_base).as_deref()
}

fn make_python_base() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-base");
    if place.join("index.json").exists() {
        return Some(place);
    }
    if !nix::unistd::geteuid().is_root() {
        cannot_run("`mmdebstrap` needs root here");
        return None;
    }
    let beside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let tar = beside.path().join("root.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=essential", "--include=python3", "bookworm"]).arg(&tar);
    command.env("SOURCE_DATE_EPOCH", "946684800").stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            cannot_run(&format!("`mmdebstrap`: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Err(error) => {
            cannot_run(&format!("`mmdebstrap`: {error}"));
            return None;
        }
    }
    let layout = beside.path().join("layout");
    write_layout(&tar, &layout);
    std::fs::rename(layout, &place).unwrap();
    Some(place)
}

/// An image whose only layer is this tar.
fn write_layout(tar: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    let packed = to.join("packed");
    let mut file = std::fs::File::create(&packed).unwrap();
    let layer = compress(&mut std::fs::File::open(tar).unwrap(), &mut file, Compression::Gzip).unwrap();
    std::fs::rename(packed, to.join(layout::blob_path(&layer.descriptor.digest))).unwrap();
    let settings = Settings { env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(), ..Settings::default() };
    let added = [Added { layer, by: "mmdebstrap".into() }];
    let platform = Platform::linux(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let image = assemble(None, &platform, &settings, &added, &Origin::default());
    for (path, document) in layout::files(&[image], "12") {
        std::fs::write(to.join(path), &document.data).unwrap();
    }
}
