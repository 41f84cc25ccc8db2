//! `kiln.v1.SshAgents`: clients serve the agents of their builds and shells, and workers ask them for the leases that they hold.

use futures::StreamExt;
use kiln_builds::Builds;
use kiln_execution::LeaseAccess;
use kiln_proto::v1::{self, ssh_agents_server};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Serves a tenant's agents.
#[derive(Debug, Clone)]
pub struct SshAgents {
    builds: Builds,
}

impl SshAgents {
    /// Serves the agents of these builds.
    pub fn new(builds: Builds) -> Self {
        Self { builds }
    }
}

#[tonic::async_trait]
impl ssh_agents_server::SshAgents for SshAgents {
    type ServeStream = ReceiverStream<Result<v1::AgentRequest, Status>>;

    async fn serve(&self, request: Request<Streaming<v1::AgentAnswer>>) -> Result<Response<Self::ServeStream>, Status> {
        let identity = kiln_auth::identity(&request);
        let mut answers = request.into_inner();
        let first = answers.next().await.transpose()?;
        let first =
            first.ok_or_else(|| Status::invalid_argument("expected a message that names the build or shell"))?;
        Ok(Response::new(ReceiverStream::new(self.builds.serve_agents(&first, &identity, answers)?)))
    }

    async fn ask(&self, request: Request<v1::AskAgentRequest>) -> Result<Response<v1::AskAgentResponse>, Status> {
        let lease = request.extensions().get::<LeaseAccess>().cloned().ok_or_else(|| {
            Status::permission_denied("no lease was presented; only a worker asks agents, for a lease that it holds")
        })?;
        let v1::AskAgentRequest { agent, request } = request.into_inner();
        Ok(Response::new(v1::AskAgentResponse { answer: lease.agent(&agent)?.ask(&agent, request).await }))
    }
}
