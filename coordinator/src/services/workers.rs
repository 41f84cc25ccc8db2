//! `kiln.v1.Workers`: the gRPC end of a worker's link.

use std::pin::Pin;

use futures::Stream;
use kiln_proto::v1;
use kiln_proto::v1::worker_message::Message;
use kiln_proto::v1::workers_server;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::auth;
use crate::execution::ExecutionHandle;

/// Messages to a worker that wait while its connection is slow.
const OUTBOX: usize = 1024;

/// Serves workers' links.
#[derive(Debug)]
pub struct Workers {
    execution: ExecutionHandle,
}

impl Workers {
    /// Links end in this execution.
    pub fn new(execution: ExecutionHandle) -> Self {
        Self { execution }
    }
}

#[tonic::async_trait]
impl workers_server::Workers for Workers {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorMessage, Status>> + Send>>;

    async fn link(&self, request: Request<Streaming<v1::WorkerMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        let identity = auth::identity(&request);
        let mut messages = request.into_inner();
        let Some(v1::WorkerMessage { message: Some(Message::Register(register)) }) = messages.message().await? else {
            return Err(Status::invalid_argument("expected `Register` as a worker's first message"));
        };
        check(&register)?;
        if !identity.is_anonymous() && identity.name != register.worker {
            return Err(Status::permission_denied(format!(
                "this worker shows that it is `{}` and registers as `{}`; give it `--name {0}`, or a certificate of its own by `--join`",
                identity.name, register.worker
            )));
        }
        let worker = register.worker.clone();
        let (sender, receiver) = mpsc::channel(OUTBOX);
        let left = sender.clone();
        let connection = self.execution.connect(register, sender);
        let execution = self.execution.clone();
        tokio::spawn(async move {
            // Who is no longer let in has nobody who listens, whatever they go on to say.
            while let Some(Ok(Some(message))) = tokio::select! {
                message = messages.message() => Some(message),
                () = left.closed() => None,
            } {
                if let Some(message) = message.message {
                    execution.said(&worker, connection, message);
                }
            }
            execution.disconnected(&worker, connection);
        });
        let answers = tokio_stream::StreamExt::map(ReceiverStream::new(receiver), Ok);
        Ok(Response::new(Box::pin(answers)))
    }
}

fn check(register: &v1::Register) -> Result<(), Status> {
    if register.worker.is_empty() {
        return Err(Status::invalid_argument("a worker needs a name: give it `--name`"));
    }
    let capacity = register.capacity.unwrap_or_default();
    if capacity.milli_cpus == 0 || capacity.memory_bytes == 0 {
        return Err(Status::invalid_argument(format!("worker `{}` offers no CPU or no memory", register.worker)));
    }
    if register.environment.is_none() {
        return Err(Status::invalid_argument(format!("worker `{}` does not say what its machine is", register.worker)));
    }
    Ok(())
}
