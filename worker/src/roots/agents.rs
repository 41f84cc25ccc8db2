//! SSH agents of mounts: a socket on disk for each, whose requests go to the farm, and from there to whoever builds.
//!
//! Invariant: only requests that list keys or sign with them are passed on; a socket is gone with its step.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kiln_proto::agent;
use kiln_proto::transfer::Client;
use kiln_proto::v1;
use kiln_proto::v1::ssh_agents_client::SshAgentsClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

/// Most connections to one socket at once.
const MAX_CONNECTIONS: usize = 64;

/// The sockets of a step, which are served until this is dropped.
#[derive(Debug)]
pub(super) struct Agents {
    directory: tempfile::TempDir,
    serving: Vec<AbortOnDropHandle<()>>,
}

impl Agents {
    /// No sockets yet; they will be below this directory.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn new(below: &Path) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(below)?;
        let directory = tempfile::Builder::new().prefix("agents-").tempdir_in(below)?;
        // A job's init may be nobody to the worker.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))?;
        Ok(Self { directory, serving: Vec::new() })
    }

    /// The socket of an agent; `client` asks for the step's lease.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(super) fn serve(&mut self, client: &Client, agent: &str) -> std::io::Result<PathBuf> {
        let name = self.serving.len().to_string();
        let opened = std::fs::File::open(self.directory.path())?;
        // The path of a socket may have no more than 107 bytes.
        let short = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(&name);
        let listener = UnixListener::bind(short)?;
        let serving = serve(listener, client.clone(), agent.to_owned());
        self.serving.push(AbortOnDropHandle::new(tokio::spawn(serving)));
        Ok(self.directory.path().join(name))
    }
}

async fn serve(listener: UnixListener, client: Client, agent: String) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (client, agent) = (client.clone(), agent.clone());
        connections.spawn(async move {
            // Whatever is wrong with a connection ends it.
            let _ = converse(stream, &client, &agent).await;
        });
    }
}

/// Answers one request after another.
async fn converse(mut stream: UnixStream, client: &Client, agent: &str) -> std::io::Result<()> {
    loop {
        let size = match stream.read_u32().await {
            Ok(size) => size as usize,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        if size == 0 || size > agent::MAX_BYTES {
            return Ok(());
        }
        let mut request = vec![0; size];
        stream.read_exact(&mut request).await?;
        let answer = asked(client, agent, request.into()).await;
        stream.write_u32(answer.len() as u32).await?;
        stream.write_all(&answer).await?;
    }
}

async fn asked(client: &Client, name: &str, request: Bytes) -> Bytes {
    let failure = Bytes::from_static(agent::FAILURE);
    if !agent::may_pass(&request) {
        return failure;
    }
    let request = v1::AskAgentRequest { agent: name.to_owned(), request };
    match SshAgentsClient::new(client.channel()).ask(request).await {
        Ok(answered) => {
            let answer = answered.into_inner().answer;
            if agent::passed(&answer) == &answer[..] { answer } else { failure }
        }
        Err(status) => {
            tracing::warn!(agent = name, reason = status.message(), "cannot ask an SSH agent");
            failure
        }
    }
}
