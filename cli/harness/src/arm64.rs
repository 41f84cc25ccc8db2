//! A machine of the other architecture next to the farm: a Debian for arm64 in namespaces and with its own network,
//! whose programs the kernel runs with qemu.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::Farm;
use crate::proxy::Proxy;

/// Where the root file system is kept between runs, because making it takes minutes.
const CACHE: &str = "/var/cache/kiln-tests";
const PACKAGES: &str = "gcc,libc6-dev,make";

/// The root file system of a Debian for arm64, or why this machine cannot provide one.
pub fn root() -> Result<&'static Path, String> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    ROOT.get_or_init(make_root).as_deref().map_err(Clone::clone)
}

fn make_root() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root makes a root file system for arm64".to_owned());
    }
    let runs = Command::new("arch-test").arg("arm64").output();
    if !runs.is_ok_and(|output| output.status.success()) {
        return Err("this machine does not run arm64 programs (`arch-test arm64`); install qemu-user-static, binfmt-support and \
                    arch-test, and mount binfmt_misc"
            .to_owned());
    }
    let cache = Path::new(CACHE);
    std::fs::create_dir_all(cache).map_err(|error| format!("{CACHE}: {error}"))?;
    let lock = std::fs::File::create(cache.join("lock")).map_err(|error| error.to_string())?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
    let root = cache.join("arm64");
    if root.join("bin/sh").exists() {
        return Ok(root);
    }
    let partial = cache.join("arm64.partial");
    let _ = std::fs::remove_dir_all(&partial);
    let made = Command::new("mmdebstrap")
        .args(["--arch=arm64", "--variant=minbase", "--include", PACKAGES, "bookworm"])
        .arg(&partial)
        .output()
        .map_err(|error| format!("mmdebstrap: {error}"))?;
    if !made.status.success() {
        return Err(format!("mmdebstrap made no root for arm64: {}", String::from_utf8_lossy(&made.stderr)));
    }
    std::fs::rename(&partial, &root).map_err(|error| error.to_string())?;
    Ok(root)
}

/// The worker, built for arm64.
pub fn worker() -> Result<&'static Path, String> {
    static WORKER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    WORKER.get_or_init(build_worker).as_deref().map_err(Clone::clone)
}

fn build_worker() -> Result<PathBuf, String> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    let workspace = crate::workspace();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--target", TARGET, "-p", "kiln-worker"])
        .current_dir(&workspace)
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !built.status.success() {
        let words = String::from_utf8_lossy(&built.stderr).into_owned();
        return Err(format!(
            "the worker was not built for {TARGET} (rustup target add, gcc-aarch64-linux-gnu): {words}"
        ));
    }
    let target = crate::build_dir().parent().unwrap().to_owned();
    Ok(target.join(TARGET).join("debug/kiln-worker"))
}

/// A worker on that machine. Dropping it ends the worker.
pub struct Host {
    process: Child,
    netns: String,
    _way: Proxy,
}

impl Host {
    /// Starts it and waits until it has joined the farm.
    pub fn join(farm: &Farm, name: &str) -> Result<Self, String> {
        let (root, worker) = (root()?, worker()?);
        let pid = std::process::id();
        let (netns, near, far) = (format!("kiln-{pid}"), format!("kn{pid}"), format!("kf{pid}"));
        let subnet = format!("10.{}.{}", 64 + pid % 64, pid / 64 % 256);
        let ip = |arguments: &str| {
            let output =
                Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
            let words = || format!("`ip {arguments}`: {}", String::from_utf8_lossy(&output.stderr));
            output.status.success().then_some(()).ok_or_else(words)
        };
        ip(&format!("netns add {netns}"))?;
        ip(&format!("link add {near} type veth peer name {far} netns {netns}"))?;
        ip(&format!("addr add {subnet}.1/30 dev {near}"))?;
        ip(&format!("link set {near} up"))?;
        ip(&format!("-n {netns} addr add {subnet}.2/30 dev {far}"))?;
        ip(&format!("-n {netns} link set {far} up"))?;
        let way = Proxy::at(&format!("{subnet}.1:0"), &farm.url);
        let home = farm.dir.path().join(name);
        for directory in ["tree", "upper", "work"] {
            std::fs::create_dir_all(home.join(directory)).unwrap();
        }
        let script = r#"
            hostname "$NAME"
            mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=$DIR/upper,workdir=$DIR/work" "$DIR/tree"
            mkdir -p "$DIR/tree/var/lib/kiln"
            mount -t tmpfs tmpfs "$DIR/tree/var/lib/kiln"
            cp "$WORKER" "$DIR/tree/usr/local/bin/kiln-worker"
            mount -t proc proc "$DIR/tree/proc"
            mount -t sysfs sysfs "$DIR/tree/sys"
            exec chroot "$DIR/tree" env -i PATH=/usr/local/bin:/usr/bin:/bin KILN_LOG=info \
                kiln-worker --coordinator "$URL" --name "$NAME" --state-dir /var/lib/kiln
        "#;
        let log = crate::farm::log(farm.dir.path(), name);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &netns, "setpriv", "--pdeathsig", "KILL"])
            .args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-e", "-c", script])
            .envs([("NAME", name), ("URL", &way.url)])
            .envs([("ROOT", root), ("DIR", &home), ("WORKER", worker)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = crate::run::spawn(command);
        let host = Self { process, netns, _way: way };
        farm.wait_for_worker(name);
        Ok(host)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).output();
    }
}

/// The machine that an ELF file is for, in the form `linux/…`.
pub fn machine(file: &Path) -> &'static str {
    let mut head = [0; 20];
    std::fs::File::open(file).unwrap().read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"\x7fELF"), "expected an ELF file at {}", file.display());
    // System V ABI: e_machine is at offset 18.
    match u16::from_le_bytes([head[18], head[19]]) {
        62 => "linux/amd64",
        183 => "linux/arm64",
        other => panic!("ELF machine {other}"),
    }
}

/// The output of a program of any architecture.
pub fn says(file: &Path, arguments: &[&str]) -> String {
    let output = match machine(file) {
        "linux/arm64" => {
            Command::new("qemu-aarch64-static").arg("-L").arg(root().unwrap()).arg(file).args(arguments).output()
        }
        _ => Command::new(file).args(arguments).output(),
    };
    String::from_utf8(output.unwrap().stdout).unwrap()
}
