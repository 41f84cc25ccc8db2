//! OpenSSH: agents with keys, the programs that use them, and a server that trusts one.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{cannot_run, has, output, until};

/// A real agent with the key `held`, beside which there is the key `file`; it ends with this.
pub struct Agent {
    dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    /// `None`, with a message, if OpenSSH is not installed.
    pub fn start() -> Option<Self> {
        if !has("ssh-agent") || !has("ssh-keygen") {
            cannot_run("OpenSSH's client is not installed (Debian: openssh-client)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let child = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        until("the agent to listen", || socket.exists().then_some(()));
        let agent = Self { dir, child };
        for (name, kind) in [("held", "ed25519"), ("file", "ecdsa")] {
            output("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", name, "-f", name], agent.dir.path());
        }
        agent.said(&["-q", "held"]);
        Some(agent)
    }

    /// A file of its directory: `socket`, a key, or a public key such as `held.pub`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `ssh-add` prints with these arguments.
    pub fn said(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("ssh-add");
        command.args(arguments).current_dir(self.dir.path()).env("SSH_AUTH_SOCK", self.path("socket"));
        crate::registry::output(&mut command)
    }
}

/// Puts programs of this machine, with the libraries that they need, below a directory.
pub fn programs(names: &[&str], root: &Path) {
    for name in names {
        let program = output("sh", &["-c", &format!("command -v {name}")], Path::new("/"));
        let linked = output("ldd", &[program.trim()], Path::new("/"));
        let libraries = linked.split_whitespace().filter(|word| word.starts_with('/'));
        for path in libraries.chain([program.trim()]) {
            let to = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(path, to).unwrap();
        }
    }
}

/// The program that serves one connection. It insists on its whole path.
const SERVER: &str = "/usr/sbin/sshd";

/// A server on this machine's loopback, at which one key logs in as root; it ends with the process.
pub struct Server {
    dir: tempfile::TempDir,
    port: u16,
}

impl Server {
    /// One that knows this public key. `None`, with a message, if OpenSSH's server is not installed.
    pub fn start(key: &Path) -> Option<Self> {
        if !Path::new(SERVER).exists() {
            cannot_run("OpenSSH's server is not installed (Debian: openssh-server)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "host"], dir.path());
        let at = dir.path().display();
        let config = format!(
            "HostKey {at}/host\nAuthorizedKeysFile {}\nPermitRootLogin yes\nPasswordAuthentication no\nStrictModes no\nUsePAM no\n",
            key.display()
        );
        std::fs::write(dir.path().join("config"), config).unwrap();
        // Where it confines itself before anybody has logged in.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = dir.path().join("config");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let input = OwnedFd::from(stream);
                let output = input.try_clone().unwrap();
                let mut command = Command::new(SERVER);
                command.args(["-i", "-f"]).arg(&config).stdin(input).stdout(output).stderr(Stdio::null());
                let mut child = command.spawn().unwrap();
                std::thread::spawn(move || child.wait());
            }
        });
        Some(Self { dir, port })
    }

    /// The URL of a directory of this machine.
    pub fn url(&self, directory: &Path) -> String {
        let at = directory.canonicalize().unwrap();
        format!("ssh://root@127.0.0.1:{}{}", self.port, at.display())
    }

    /// Its own public key.
    pub fn key(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("host.pub")).unwrap()
    }
}
