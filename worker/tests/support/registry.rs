//! For tests: a container registry on loopback that requires a name and a password, stopped when this process ends.

#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::{Engine, cannot_run};

/// The user with all rights.
pub const USER: &str = "fred";
pub const PASSWORD: &str = "secret";
/// That password in the format of `htpasswd -B`.
const HTPASSWD: &str = "fred:$2b$04$Z7DcSYl7NaszEdOACYL6SeM6pF0LEoAk0.wd7GnIbQg031NMJPtmG\n";
/// Both in the format of a credential file.
const AUTH: &str = "ZnJlZDpzZWNyZXQ=";
const WRONG_AUTH: &str = "ZnJlZDp3cm9uZw==";

/// Stops the registry when its standard input is closed.
const SUPERVISE: &str =
    r#"docker-registry serve "$1" >"$2" 2>&1 </dev/null & registry=$!; cat >/dev/null; kill $registry; wait"#;

/// A running registry.
pub struct Registry {
    /// Host and port.
    pub host: String,
    dir: tempfile::TempDir,
    supervisor: std::process::Child,
}

impl Registry {
    /// Starts one; `None` if it cannot be started.
    pub fn start() -> Option<Self> {
        if !["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"].iter().any(|path| Path::new(path).exists()) {
            cannot_run("`docker-registry` is not installed (Debian: docker-registry)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let (passwords, config) = (dir.path().join("htpasswd"), dir.path().join("config.yml"));
        std::fs::write(&passwords, HTPASSWD).unwrap();
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            dir.path().join("data").display(),
            passwords.display()
        );
        std::fs::write(&config, text).unwrap();
        let supervisor = Command::new("bash")
            .args(["-c", SUPERVISE, "supervise"])
            .args([&config, &dir.path().join("log")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let registry = Self { host, dir, supervisor };
        registry.credentials("right", AUTH);
        registry.credentials("wrong", WRONG_AUTH);
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&registry.host).is_err() {
            let log = std::fs::read_to_string(registry.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "expected the registry to answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn credentials(&self, name: &str, auth: &str) {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let text = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", self.host);
        std::fs::write(dir.join("config.json"), text).unwrap();
    }

    /// Writes a credential file that names a helper, and puts the helper into `PATH`.
    pub fn write_helper(&self, file: &Path) {
        use std::os::unix::fs::PermissionsExt;
        // A helper is found by its name in `PATH`; this name is unique.
        let name = format!("kiln-test-{}", self.host.rsplit(':').next().unwrap_or_default());
        let program = Path::new("/usr/local/bin").join(format!("docker-credential-{name}"));
        let script =
            format!("#!/bin/sh\ncat >/dev/null\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(file, format!("{{\"credHelpers\":{{\"{}\":\"{name}\"}}}}", self.host)).unwrap();
    }

    /// A `DOCKER_CONFIG` with the correct password.
    pub fn right(&self) -> PathBuf {
        self.dir.path().join("right")
    }

    /// A `DOCKER_CONFIG` with a wrong one.
    pub fn wrong(&self) -> PathBuf {
        self.dir.path().join("wrong")
    }

    /// Gives an image of the engine a name in the registry, pushes it, and removes that name from the engine.
    pub fn push(&self, engine: &Engine, image: &str, name: &str) -> String {
        let reference = format!("{}/{name}", self.host);
        engine.ok(&["tag", image, &reference]);
        let config = self.right().display().to_string();
        engine.ok(&["--config", &config, "push", "--quiet", &reference]);
        engine.ok(&["rmi", &reference]);
        reference
    }

    /// The name with digest of an image that was pushed; the engine had it for a moment.
    pub fn by_digest(&self, engine: &Engine, reference: &str) -> String {
        let config = self.right().display().to_string();
        engine.ok(&["--config", &config, "pull", "--quiet", reference]);
        let digests = engine.ok(&["image", "inspect", "--format", "{{join .RepoDigests \" \"}}", reference]);
        engine.ok(&["rmi", reference]);
        let of_repository = format!("{}@", reference.rsplit_once(':').unwrap().0);
        digests.split_whitespace().find(|name| name.starts_with(&of_repository)).unwrap().to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
        let port = self.host.rsplit(':').next().unwrap_or_default();
        let _ = std::fs::remove_file(format!("/usr/local/bin/docker-credential-kiln-test-{port}"));
    }
}
