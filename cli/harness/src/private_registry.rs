//! A container registry that requires a name and a password, and the credentials for it.

use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::registry::{Registry, Setup};

/// The user with all rights.
pub const USER: &str = "fred";
pub const PASSWORD: &str = "secret";
/// Both in the format of a credential file.
const AUTH: &str = "ZnJlZDpzZWNyZXQ=";
const WRONG_AUTH: &str = "ZnJlZDp3cm9uZw==";

/// A running registry, and the credentials for it.
pub struct PrivateRegistry {
    /// Host and port.
    pub host: String,
    dir: tempfile::TempDir,
    _server: Registry,
}

impl PrivateRegistry {
    /// Starts one; `None` if it cannot be started.
    pub fn start() -> Option<Self> {
        let server = Registry::with(&Setup { login: Some((USER, PASSWORD)), ..Setup::default() })?;
        let registry = Self { host: server.name.clone(), dir: tempfile::tempdir().unwrap(), _server: server };
        registry.credentials("right", AUTH);
        registry.credentials("wrong", WRONG_AUTH);
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

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        let port = self.host.rsplit(':').next().unwrap_or_default();
        let _ = std::fs::remove_file(format!("/usr/local/bin/docker-credential-kiln-test-{port}"));
    }
}
