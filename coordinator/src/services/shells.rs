//! `kiln.v1.Shells`: users open shells in the places of steps, and workers serve them for the leases that they hold.

use std::time::Duration;

use futures::StreamExt;
use kiln_auth::audit::Subject;
use kiln_builds::Builds;
use kiln_execution::LeaseAccess;
use kiln_proto::v1::{self, shell_input, shells_server};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a client may take to say what it wants.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Serves a tenant's shells.
#[derive(Debug, Clone)]
pub struct Shells {
    builds: Builds,
}

impl Shells {
    /// Opens shells in the steps of these builds.
    pub fn new(builds: Builds) -> Self {
        Self { builds }
    }
}

#[tonic::async_trait]
impl shells_server::Shells for Shells {
    type OpenStream = ReceiverStream<Result<v1::ShellOutput, Status>>;
    type ServeStream =
        futures::stream::Map<ReceiverStream<v1::ShellInput>, fn(v1::ShellInput) -> Result<v1::ShellInput, Status>>;

    async fn open(&self, request: Request<Streaming<v1::ShellInput>>) -> Result<Response<Self::OpenStream>, Status> {
        let (identity, subject) = (kiln_auth::identity(&request), Subject::of(&request));
        let mut typed = request.into_inner();
        let first = tokio::time::timeout(FIRST_WORD, typed.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("expected `OpenShell` at once"))??;
        let Some(shell_input::Message::Open(open)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("expected `OpenShell` as the first message"));
        };
        let told = self.builds.open_shell(identity, open, |what| subject.is(what), typed).await?;
        Ok(Response::new(ReceiverStream::new(told)))
    }

    async fn serve(&self, request: Request<Streaming<v1::ShellOutput>>) -> Result<Response<Self::ServeStream>, Status> {
        let lease = request.extensions().get::<LeaseAccess>().cloned().ok_or_else(|| {
            Status::permission_denied("no lease was presented; only a worker serves shells, for a lease that it holds")
        })?;
        let (output, input) = lease.shell()?;
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if output.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(input).map(Ok)))
    }
}
