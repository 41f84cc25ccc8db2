//! SSH agents and keys of this machine, for the steps of a build and for shells.
//!
//! Invariant: only requests that list keys or sign with them reach an agent; keys never leave this machine.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

#[cfg_attr(windows, path = "own_windows.rs")]
mod own;
mod socket;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kiln_proto::agent;
use kiln_proto::channel::Channel;
use kiln_proto::v1::ssh_agents_client::SshAgentsClient;
use kiln_proto::v1::{AgentAnswer, AgentRequest};
use kiln_telemetry::trace::Traced;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// How the farm is asked.
pub type Client = SshAgentsClient<Traced<Channel>>;

/// Pause before a broken connection is made again.
const PAUSE: Duration = Duration::from_millis(500);
/// Answers that wait to be sent.
const QUEUE: usize = 16;

/// Why an agent or a key cannot be used. All of it is the user's to fix.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "`--ssh {id}`: no SSH agent runs here: `SSH_AUTH_SOCK` is not set; start `ssh-agent`, or name a key: `--ssh {id}=PATH`"
    )]
    NoAgent { id: String },
    #[error("`--ssh {id}`: there is no `{}`", .path.display())]
    Absent { id: String, path: PathBuf },
    #[error("`--ssh {id}`: expected one socket or any number of keys, found the socket `{}` among others", .path.display())]
    Mixed { id: String, path: PathBuf },
    #[error("`--ssh {id}` is repeated; give each agent an id of its own")]
    Repeated { id: String },
    #[error(
        "cannot start `{program}` for the keys of `--ssh {id}`: {source}; install OpenSSH's client (Debian: `openssh-client`)"
    )]
    Program {
        id: String,
        program: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("`--ssh {id}`: the key `{}` cannot be used: {reason}", .path.display())]
    Key { id: String, path: PathBuf, reason: String },
}

/// What `--ssh` says: `ID`, `ID=SOCKET` or `ID=KEY,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What mounts call it.
    pub id: String,
    /// A socket, or keys; none: the agent that `SSH_AUTH_SOCK` names.
    pub paths: Vec<PathBuf>,
}

impl FromStr for Offer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        if id.is_empty() {
            return Err("expected `default`, `ID=SOCKET` or `ID=KEY`".to_owned());
        }
        let paths = paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
        Ok(Self { id: id.to_owned(), paths })
    }
}

/// Whose requests are answered.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Those of the steps of a build, by its id.
    Build(&'a str),
    /// Those of a shell that is open, by the id under which it was opened.
    Shell(&'a str),
}

impl Whose<'_> {
    /// The first message to the farm.
    fn named(self) -> AgentAnswer {
        match self {
            Self::Build(build) => AgentAnswer { build: build.to_owned(), ..AgentAnswer::default() },
            Self::Shell(shell) => AgentAnswer { shell: shell.to_owned(), ..AgentAnswer::default() },
        }
    }
}

/// Agents, by what mounts call them.
#[derive(Debug, Default)]
pub struct Agents {
    sockets: BTreeMap<String, PathBuf>,
    _own: Vec<own::Own>,
}

impl Agents {
    /// Opens what the command line offers. Blocks while keys are read, which may ask for a passphrase.
    ///
    /// # Errors
    /// If there is no such agent, or a key cannot be used.
    pub fn open(offers: &[Offer]) -> Result<Self, Error> {
        let mut agents = Self::default();
        for Offer { id, paths } in offers {
            let socket = match paths.as_slice() {
                [] => socket::own().ok_or_else(|| Error::NoAgent { id: id.clone() })?,
                [path] if is_socket(id, path)? => path.clone(),
                keys => {
                    for path in keys {
                        if is_socket(id, path)? {
                            return Err(Error::Mixed { id: id.clone(), path: path.clone() });
                        }
                    }
                    let own = own::Own::start(id, keys)?;
                    let socket = own.socket();
                    agents._own.push(own);
                    socket
                }
            };
            if agents.sockets.insert(id.clone(), socket).is_some() {
                return Err(Error::Repeated { id: id.clone() });
            }
        }
        Ok(agents)
    }

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = &String> {
        self.sockets.keys()
    }

    /// Whether none was offered.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Does something else, and answers requests meanwhile.
    pub async fn beside<T>(&self, client: impl Fn() -> Client, whose: Whose<'_>, work: impl Future<Output = T>) -> T {
        if self.sockets.is_empty() {
            return work.await;
        }
        tokio::select! {
            done = work => done,
            never = self.keep_serving(client, whose) => match never {},
        }
    }

    /// Serves a build or a shell, also when the connection breaks.
    async fn keep_serving(&self, client: impl Fn() -> Client, whose: Whose<'_>) -> Infallible {
        loop {
            if let Err(status) = self.serve(client(), whose).await {
                tracing::info!(reason = status.message(), "the farm does not reach the SSH agents of this machine");
                if matches!(status.code(), Code::NotFound | Code::PermissionDenied | Code::Unimplemented) {
                    return std::future::pending().await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn serve(&self, mut client: Client, whose: Whose<'_>) -> Result<(), Status> {
        let (sender, answers) = mpsc::channel(QUEUE);
        let gone = |_| Status::unavailable("the connection broke");
        sender.send(whose.named()).await.map_err(gone)?;
        let mut requests = client.serve(ReceiverStream::new(answers)).await?.into_inner();
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                request = requests.message() => {
                    let Some(request) = request? else { return Ok(()) };
                    running.push(self.answer(request));
                }
                Some(answer) = running.next() => sender.send(answer).await.map_err(gone)?,
            }
        }
    }

    async fn answer(&self, AgentRequest { number, agent, request }: AgentRequest) -> AgentAnswer {
        let failure = || Bytes::from_static(agent::FAILURE);
        let answer = match self.sockets.get(&agent).filter(|_| agent::may_pass(&request)) {
            Some(socket) => ask(socket, &request).await.unwrap_or_else(|error| {
                tracing::info!(agent, %error, "an SSH agent does not answer");
                failure()
            }),
            None => failure(),
        };
        AgentAnswer { number, answer, ..AgentAnswer::default() }
    }
}

fn is_socket(id: &str, path: &Path) -> Result<bool, Error> {
    let data = std::fs::metadata(path).map_err(|_| Error::Absent { id: id.to_owned(), path: path.to_owned() })?;
    Ok(socket::is_one(path, &data))
}

/// What an agent answers.
async fn ask(path: &Path, request: &[u8]) -> std::io::Result<Bytes> {
    let mut stream = socket::connect(path).await?;
    stream.write_u32(request.len() as u32).await?;
    stream.write_all(request).await?;
    let size = stream.read_u32().await? as usize;
    if size > agent::MAX_BYTES {
        return Err(std::io::Error::other(format!("an answer of {size} bytes")));
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer).await?;
    Ok(Bytes::copy_from_slice(agent::passed(&answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read_as_docker_reads_them() {
        let offer = |text: &str| text.parse::<Offer>().map(|offer| (offer.id, offer.paths.len()));
        assert_eq!(offer("default"), Ok(("default".to_owned(), 0)));
        assert_eq!(offer("git=/run/agent"), Ok(("git".to_owned(), 1)));
        assert_eq!(offer("git=a,b"), Ok(("git".to_owned(), 2)));
        assert!(offer("=a").is_err() && offer("").is_err());
    }

    #[tokio::test]
    async fn an_agent_hears_only_of_what_may_pass() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let size = stream.read_u32().await.unwrap();
            let mut request = vec![0; size as usize];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_u32(5).await.unwrap();
            stream.write_all(&[12, 0, 0, 0, 0]).await.unwrap();
            // Nothing else has come, or the next connection would be it.
            (request, listener)
        });
        let offer = Offer { id: "default".to_owned(), paths: vec![socket.clone()] };
        let agents = Agents::open(std::slice::from_ref(&offer)).unwrap();
        let asked = |agent: &str, request: &'static [u8]| {
            agents.answer(AgentRequest { number: 7, agent: agent.to_owned(), request: Bytes::from_static(request) })
        };
        for (agent, request) in [("other", &[11][..]), ("default", &[19]), ("default", &[17, 1]), ("default", &[])] {
            assert_eq!(asked(agent, request).await.answer, agent::FAILURE);
        }
        let answered = asked("default", &[11]).await;
        assert_eq!((answered.number, &answered.answer[..]), (7, &[12, 0, 0, 0, 0][..]));
        assert_eq!(heard.await.unwrap().0, [11]);
        assert!(matches!(Agents::open(&[offer.clone(), offer]), Err(Error::Repeated { .. })));
        let absent = Offer { id: "x".to_owned(), paths: vec![dir.path().join("none")] };
        assert!(matches!(Agents::open(&[absent]), Err(Error::Absent { .. })));
    }
}
