//! A real registry: Debian's `docker-registry`, each with its own directory and port.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::has;

/// How long a registry may take to respond.
const DEADLINE: Duration = Duration::from_secs(30);

/// A registry that is stopped when dropped.
pub struct Registry {
    pub dir: tempfile::TempDir,
    /// Host and port.
    pub name: String,
    child: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a registry is set up.
#[derive(Default)]
pub struct Setup<'a> {
    /// User and password.
    pub login: Option<(&'a str, &'a str)>,
    /// Certificate and key, in PEM.
    pub tls: Option<(&'a str, &'a str)>,
    /// Its capacity in bytes; requires root.
    pub room: Option<u64>,
}

impl Registry {
    /// A registry that anyone may push to, over plain HTTP. `None` if there is no `docker-registry`.
    pub fn start() -> Option<Self> {
        Self::with(&Setup::default())
    }

    pub fn with(setup: &Setup<'_>) -> Option<Self> {
        if !has("docker-registry") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let name = format!("127.0.0.1:{port}");
        let storage = dir.path().join("storage");
        std::fs::create_dir(&storage).unwrap();
        let mut config = format!(
            "version: 0.1\nlog: {{ level: warn }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n  delete: {{ enabled: true }}\n\
             http:\n  addr: {name}\n",
            storage.display()
        );
        if let Some((certificate, key)) = setup.tls {
            let write = |file: &str, text: &str| -> PathBuf {
                let path = dir.path().join(file);
                std::fs::write(&path, text).unwrap();
                path
            };
            let (certificate, key) = (write("tls.crt", certificate), write("tls.key", key));
            config += &format!("  tls: {{ certificate: {}, key: {} }}\n", certificate.display(), key.display());
        }
        if let Some((user, password)) = setup.login {
            if !has("htpasswd") {
                return None;
            }
            let made = Command::new("htpasswd").args(["-Bbn", "-C", "4", user, password]).output().unwrap();
            let path = dir.path().join("htpasswd");
            std::fs::write(&path, made.stdout).unwrap();
            config += &format!("auth:\n  htpasswd: {{ realm: kiln, path: {} }}\n", path.display());
        }
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        if let Some(room) = setup.room {
            // Its own file system, in a mount namespace that ends with the process.
            let mount =
                format!("mount -t tmpfs -o size={room} none {} && exec docker-registry \"$@\"", storage.display());
            command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &mount, "sh"]);
        }
        let child = command
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self { dir, name, child };
        let began = Instant::now();
        while std::net::TcpStream::connect(&registry.name).is_err() {
            assert!(began.elapsed() < DEADLINE, "docker-registry did not answer: {}", registry.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(registry)
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// The output of a command, which must succeed.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
