//! The SSH agents of a client: requests of a build's steps go to the client that follows it, those of a shell to the one that has it, and
//! answers come back.
//!
//! Invariant: nothing of them is kept. While no client serves them, a request waits a moment and then fails, as with an agent that is gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use kiln_auth::Identity;
use kiln_proto::v1::{AgentAnswer, AgentRequest};
use kiln_proto::{agent, root};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use super::Builds;

/// How long a request waits for the client to come, or to come back.
const CLIENT_WINDOW: Duration = Duration::from_secs(60);
/// How long a client may take to answer: the user may have to confirm the use of a key.
const ANSWER_WINDOW: Duration = Duration::from_secs(300);
/// Requests that wait to be sent to a client.
const QUEUE: usize = 16;

/// Maximum bytes of a shell's id.
const MAX_ID: usize = 64;

/// The variable that names the socket of an SSH agent.
const VARIABLE: &str = "SSH_AUTH_SOCK";

/// The variable that names the socket of the first agent among these mounts.
pub(crate) fn variable(mounts: &[root::Mount]) -> BTreeMap<String, String> {
    let agent = mounts.iter().find_map(|mount| match mount {
        root::Mount::Ssh { target, .. } => Some(target.clone()),
        _ => None,
    });
    agent.map(|target| (VARIABLE.to_owned(), target)).into_iter().collect()
}

/// The agents of the shells that are open, by the ids that their clients have chosen.
pub(crate) type OfShells = Mutex<HashMap<String, OfShell>>;

/// The agents of a shell.
#[derive(Debug)]
pub(crate) struct OfShell {
    /// The authenticated name of whoever has the shell; empty if the farm does not authenticate.
    owner: String,
    agents: Arc<Agents>,
}

/// Agents that are found under a shell's id until this is dropped.
#[derive(Debug)]
pub(crate) struct Found {
    builds: Builds,
    id: String,
}

impl Drop for Found {
    fn drop(&mut self) {
        self.builds.shared.shells.lock().remove(&self.id);
    }
}

/// The agents of a build or a shell.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    /// The client that serves them now, if one does.
    client: watch::Sender<Option<mpsc::Sender<Result<AgentRequest, Status>>>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
    next: AtomicU64,
}

impl Agents {
    /// Serves them by a client: gives the requests, and takes the answers as they come. A client that comes later takes its place.
    fn serve(
        self: &Arc<Self>,
        mut answers: impl Stream<Item = Result<AgentAnswer, Status>> + Send + Unpin + 'static,
    ) -> mpsc::Receiver<Result<AgentRequest, Status>> {
        let (sender, requests) = mpsc::channel(QUEUE);
        self.client.send_replace(Some(sender.clone()));
        let agents = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(AgentAnswer { number, answer, .. })) = answers.next().await {
                if let Some(waiting) = agents.waiting.lock().remove(&number) {
                    let _ = waiting.send(answer);
                }
            }
            agents.client.send_if_modified(|client| {
                let is_own = client.as_ref().is_some_and(|client| client.same_channel(&sender));
                if is_own {
                    *client = None;
                }
                is_own
            });
        });
        requests
    }

    async fn asked(&self, agent: &str, request: Bytes) -> Option<Bytes> {
        let mut client = self.client.subscribe();
        let present = tokio::time::timeout(CLIENT_WINDOW, client.wait_for(Option::is_some));
        let client = present.await.ok()?.ok()?.clone()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(number, answer);
        // Whoever asked may leave before the answer.
        let _forgotten = scopeguard::guard((), |()| drop(self.waiting.lock().remove(&number)));
        client.send(Ok(AgentRequest { number, agent: agent.to_owned(), request })).await.ok()?;
        tokio::select! {
            answer = tokio::time::timeout(ANSWER_WINDOW, answered) => answer.ok()?.ok(),
            () = client.closed() => None,
        }
    }
}

#[async_trait]
impl kiln_execution::Agents for Agents {
    async fn ask(&self, agent: &str, request: Bytes) -> Bytes {
        let failure = Bytes::from_static(agent::FAILURE);
        if !agent::may_pass(&request) {
            return failure;
        }
        match self.asked(agent, request).await {
            Some(answer) if agent::passed(&answer) == &answer[..] => answer,
            _ => failure,
        }
    }
}

impl Builds {
    /// Serves the agents of a build that runs, or of a shell that is open, for the user that it belongs to; `whose` names it.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such build or shell, `PERMISSION_DENIED` if it is another user's.
    pub fn serve_agents(
        &self,
        whose: &AgentAnswer,
        identity: &Identity,
        answers: impl Stream<Item = Result<AgentAnswer, Status>> + Send + Unpin + 'static,
    ) -> Result<mpsc::Receiver<Result<AgentRequest, Status>>, Status> {
        let AgentAnswer { build, shell, .. } = whose;
        let (what, owner, agents) = if shell.is_empty() {
            let active = self.shared.active.lock().get(build).cloned();
            let active = active.ok_or_else(|| Status::not_found(format!("build `{build}` does not run")))?;
            let owner = active.build.lock().identity.clone();
            (format!("build `{build}`"), owner, active.agents)
        } else {
            let shells = self.shared.shells.lock();
            let open = shells.get(shell).ok_or_else(|| Status::not_found(format!("no shell `{shell}` is open")))?;
            (format!("shell `{shell}`"), open.owner.clone(), open.agents.clone())
        };
        if !owner.is_empty() && owner != identity.name {
            return Err(Status::permission_denied(format!("{what} belongs to `{owner}`, who alone gives it agents")));
        }
        Ok(agents.serve(answers))
    }

    /// The agents of a shell, which its client serves under this id.
    pub(crate) fn agents_of_shell(&self, id: &str, owner: &str) -> Result<(Arc<Agents>, Found), Status> {
        if id.len() > MAX_ID {
            return Err(Status::invalid_argument(format!("an id of {} bytes; expected at most {MAX_ID}", id.len())));
        }
        let mut shells = self.shared.shells.lock();
        if shells.contains_key(id) {
            return Err(Status::already_exists(format!("a shell `{id}` is open already; choose another id")));
        }
        let agents = Arc::<Agents>::default();
        shells.insert(id.to_owned(), OfShell { owner: owner.to_owned(), agents: agents.clone() });
        Ok((agents, Found { builds: self.clone(), id: id.to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use kiln_execution::Agents as _;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_reaches_the_client_that_serves_now_and_fails_without_one() {
        let agents = Arc::new(Agents::default());
        let request = Bytes::from_static(&[11]);
        assert_eq!(agents.ask("default", request.clone()).await, agent::FAILURE, "nobody came within the window");
        let (first, answers) = mpsc::channel(1);
        let mut requests = agents.serve(ReceiverStream::new(answers));
        let client = async {
            let asked = requests.recv().await.unwrap().unwrap();
            assert_eq!((asked.agent.as_str(), &asked.request[..]), ("default", &[11][..]));
            let answer = Bytes::from_static(&[12, 0, 0, 0, 0]);
            first.send(Ok(AgentAnswer { number: asked.number, answer, ..AgentAnswer::default() })).await.unwrap();
        };
        let (answer, ()) = tokio::join!(agents.ask("default", request.clone()), client);
        assert_eq!(answer, &[12, 0, 0, 0, 0][..]);
        // Keys are neither added nor removed, whoever asks.
        for kind in [17, 18, 19, 22, 25, 27] {
            assert_eq!(agents.ask("default", Bytes::from(vec![kind])).await, agent::FAILURE);
        }
        assert!(requests.try_recv().is_err(), "the client heard of none of them");
        drop((first, requests));
        assert_eq!(agents.ask("default", request).await, agent::FAILURE, "the client is gone");
    }
}
