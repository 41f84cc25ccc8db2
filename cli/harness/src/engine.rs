//! A Docker Engine for this process, with a small image in it, stopped when the process ends.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cannot_run;

/// The image in every engine of the tests: only busybox.
pub const BUSYBOX: &str = "kiln-test/busybox:1";
/// An image with a volume at `/data`.
pub const WITH_VOLUME: &str = "kiln-test/volume:1";
/// An image for another architecture.
pub const FOREIGN: &str = "kiln-test/foreign:1";

/// Starts an engine, and ends it with everything that belongs to it when its standard input is closed.
const SUPERVISE: &str = r#"
dir=$1
dockerd --host "unix://$dir/docker.sock" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
  --bridge=none --iptables=false --ip6tables=false --storage-driver=overlay2 \
  --default-address-pool="base=$2,size=24" >"$dir/log" 2>&1 </dev/null &
engine=$!
echo $engine
cat >/dev/null
kill $engine; wait $engine
grep " $dir/" /proc/self/mountinfo | cut -d' ' -f5 | sort -r | while read -r mount; do umount -l "$mount"; done
rm -rf "$dir"
"#;

/// A running engine.
pub struct Engine {
    pub host: String,
    /// The engine's process.
    pub pid: u32,
    directory: PathBuf,
    /// Closed when this process ends, which ends the engine.
    supervisor: Option<std::process::Child>,
}

/// The engine shared by the tests of this process: the one in `KILN_TEST_ENGINE` (another Docker, or Podman), or else
/// one that is started. `None` if neither is possible.
pub fn shared() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let start = || match std::env::var("KILN_TEST_ENGINE") {
        Ok(host) => Some(Engine { host, pid: 0, directory: PathBuf::new(), supervisor: None }.with_images()),
        Err(_) => Engine::start(),
    };
    ENGINE.get_or_init(start).as_ref()
}

fn missing() -> Option<String> {
    let there = |program: &str| {
        std::env::split_paths("/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").any(|dir| dir.join(program).exists())
    };
    if !rustix::process::geteuid().is_root() {
        return Some("`dockerd` needs root".to_owned());
    }
    let tools = ["dockerd", "docker", "busybox"].into_iter().find(|tool| !there(tool));
    tools.map(|tool| format!("`{tool}` is not installed (Debian: docker.io, busybox-static)"))
}

impl Engine {
    /// An engine for one test, with the test images; `None` if none can be started.
    pub fn start() -> Option<Self> {
        Self::bare().map(Self::with_images)
    }

    /// An engine for one test, without an image; `None` if none can be started.
    pub fn bare() -> Option<Self> {
        if let Some(missing) = missing() {
            cannot_run(&missing);
            return None;
        }
        let directory = tempfile::Builder::new().prefix("kiln-engine-").tempdir().unwrap().keep();
        // Networks that a test creates must not overlap with those of others.
        let pid = std::process::id();
        let networks = format!("10.{}.{}.0/20", 128 + pid / 16 % 64, pid % 16 * 16);
        let mut supervisor = Command::new("bash")
            .args(["-c", SUPERVISE, "supervise", &directory.display().to_string(), &networks])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(supervisor.stdout.take().unwrap()), &mut line)
            .unwrap();
        let host = format!("unix://{}/docker.sock", directory.display());
        let engine = Self { host, pid: line.trim().parse().unwrap(), directory, supervisor: Some(supervisor) };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !engine.docker(&["version"]).status.success() {
            let log = || std::fs::read_to_string(engine.directory.join("log")).unwrap_or_default();
            if Instant::now() > deadline || !Path::new(&format!("/proc/{}", engine.pid)).exists() {
                cannot_run(&format!("the Docker Engine does not start on this machine: {}", log()));
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(engine)
    }

    fn with_images(self) -> Self {
        self.import(BUSYBOX, &["--change", "ENV FROM_IMAGE=yes", "--change", "ENV PATH=/bin"]);
        self.import(WITH_VOLUME, &["--change", "VOLUME /data", "--change", "ENV PATH=/bin"]);
        self.make_foreign();
        self
    }

    /// Docker's own client, for this engine.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", &self.directory).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Like [`Engine::docker`], but it must succeed; returns the output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "expected `docker {}` to succeed: {complaint}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Imports Debian 12; `None` if it cannot be made.
    pub fn debian(&self) -> Option<&'static str> {
        const NAME: &str = "kiln-test/debian:12";
        let tar = crate::bases::debian()?;
        self.ok(&["import", "--change", "ENV PATH=/usr/bin:/bin", &tar.display().to_string(), NAME]);
        Some(NAME)
    }

    /// What distinguishes this engine: it is in the paths of everything that its containers mount.
    pub fn name(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The containers with this label, running or not.
    pub fn containers(&self, label: &str) -> Vec<String> {
        let said = self.ok(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &format!("label={label}")]);
        said.lines().map(str::to_owned).collect()
    }

    /// The id of an image.
    pub fn id(&self, image: &str) -> String {
        self.ok(&["image", "inspect", "--format", "{{.Id}}", image])
    }

    /// The test image under another architecture's name.
    fn make_foreign(&self) {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
        let script = "docker save \"$1\" | tar -x -C \"$3\" && cd \"$3\" && chmod -R u+w . && \
            sed -i \"s/\\\"architecture\\\":\\\"$4\\\"/\\\"architecture\\\":\\\"$5\\\"/\" *.json && \
            sed -i \"s|$1|$2|\" manifest.json && rm -f repositories && tar -c . | docker load";
        let made = Command::new("bash")
            .env("DOCKER_HOST", &self.host)
            .args(["-ec", script, "foreign", BUSYBOX, FOREIGN, &dir.path().display().to_string(), own, other])
            .output()
            .unwrap();
        assert!(made.status.success(), "expected an image of {other}: {}", String::from_utf8_lossy(&made.stderr));
    }

    fn import(&self, name: &str, options: &[&str]) {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        for directory in ["etc", "tmp", "data", "var"] {
            std::fs::create_dir(root.path().join(directory)).unwrap();
        }
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        let applets = Command::new(busybox).arg("--list").output().unwrap();
        for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let tar = root.path().with_extension("tar");
        let packed = Command::new("tar").arg("-C").arg(root.path()).arg("-cf").arg(&tar).arg(".").status().unwrap();
        assert!(packed.success(), "expected `tar` to pack an image");
        let file = tar.display().to_string();
        self.ok(&[&["import"], options, &[file.as_str(), name]].concat());
        std::fs::remove_file(tar).unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(supervisor) = &mut self.supervisor {
            drop(supervisor.stdin.take());
            let _ = supervisor.wait();
        }
    }
}
