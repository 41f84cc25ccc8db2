//! OpenSSH: agents with keys, and the programs that use them.

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
