//! An agent for key files: OpenSSH's own, which knows every kind of key and asks for passphrases as the user is used to.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// Says which process the agent is, and lives until this process closes its input: then the agent ends, too.
const KEEPER: &str = "echo \"$SSH_AGENT_PID\" && exec cat >&2";

/// A running agent, which ends with this.
#[derive(Debug)]
pub(crate) struct Own {
    directory: tempfile::TempDir,
    keeper: Child,
    agent: Option<Pid>,
}

impl Own {
    /// Starts an agent with these keys.
    pub(crate) fn start(id: &str, keys: &[PathBuf]) -> Result<Self, Error> {
        let failed = |program| move |source| Error::Program { id: id.to_owned(), program, source };
        // Only its user may enter it.
        let directory = tempfile::Builder::new().prefix("kiln-ssh-").tempdir().map_err(failed("ssh-agent"))?;
        let mut command = Command::new("ssh-agent");
        command.arg("-a").arg(directory.path().join("agent")).args(["sh", "-c", KEEPER]);
        let mut keeper = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("ssh-agent"))?;
        let mut line = String::new();
        if let Some(out) = keeper.stdout.take() {
            BufReader::new(out.take(64)).read_line(&mut line).map_err(failed("ssh-agent"))?;
        }
        let agent = line.trim().parse().ok().and_then(Pid::from_raw);
        let own = Self { directory, keeper, agent };
        for key in keys {
            let mut command = Command::new("ssh-add");
            command.args(["-q", "--"]).arg(key).env("SSH_AUTH_SOCK", own.socket()).stdin(Stdio::null());
            let added = command.output().map_err(failed("ssh-add"))?;
            if !added.status.success() {
                let said = String::from_utf8_lossy(&added.stderr).trim().replace('\n', "; ");
                return Err(Error::Key { id: id.to_owned(), path: key.clone(), reason: said });
            }
        }
        Ok(own)
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("agent")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(agent) = self.agent {
            let _ = kill_process(agent, Signal::TERM);
        }
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
