//! `kiln.v1.Workers`: the coordinator's end of a worker's connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures::{Stream, StreamExt};
use kiln_proto::v1;
use kiln_proto::v1::worker_message::Message;
use kiln_proto::v1::workers_server;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use kiln_execution::ExecutionHandle;

/// Messages to a worker that are queued while its connection is slow.
const OUTBOX: usize = 1024;

/// Messages from one worker that are read but not handled yet.
const INBOX: usize = 16;
/// Maximum number of connected workers.
const MAX_WORKERS: usize = 10_000;
/// Maximum bytes of a worker's name and version.
const MAX_NAME_BYTES: usize = 256;
/// Maximum number of tenants that a worker may be bound to.
const MAX_TENANTS: usize = 1_000;
/// The label with a worker's pool.
const POOL_LABEL: &str = "pool";
/// Maximum size of a worker's tools and labels.
const MAX_ENVIRONMENT_BYTES: usize = 256 << 10;
/// Maximum number of leases that a worker may report as running.
const MAX_RUNNING: usize = 4096;

/// Serves workers' connections.
#[derive(Debug)]
pub struct Workers {
    execution: ExecutionHandle,
    places: Arc<Semaphore>,
}

impl Workers {
    /// Connects workers to this execution.
    pub fn new(execution: ExecutionHandle) -> Self {
        Self { execution, places: Arc::new(Semaphore::new(MAX_WORKERS)) }
    }
}

#[tonic::async_trait]
impl workers_server::Workers for Workers {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorMessage, Status>> + Send>>;

    async fn link(&self, request: Request<Streaming<v1::WorkerMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        let identity = kiln_auth::identity(&request);
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("the farm has {MAX_WORKERS} workers, the most that it allows"))
        })?;
        let subject = kiln_auth::audit::Subject::of(&request);
        let mut messages = request.into_inner();
        let Some(v1::WorkerMessage { message: Some(Message::Register(register)) }) = messages.message().await? else {
            return Err(Status::invalid_argument("expected `Register` as a worker's first message"));
        };
        subject.is(format!("worker {}", register.worker));
        check(&register)?;
        if !identity.is_anonymous() && identity.name != register.worker {
            return Err(Status::permission_denied(format!(
                "this worker's certificate is for `{}`, but it registers as `{}`; start it with `--name {0}`, or give it its own \
                 certificate with `--join`",
                identity.name, register.worker
            )));
        }
        let register = bound(register, &identity)?;
        let worker = register.worker.clone();
        let (sender, receiver) = mpsc::channel(OUTBOX);
        let connection = self.execution.connect(register, sender).await?;
        let execution = self.execution.clone();
        let (answers, listened) = until_dropped(ReceiverStream::new(receiver));
        tokio::spawn(async move {
            let inbox = Arc::new(Semaphore::new(INBOX));
            // Everything that a revoked worker still sends is ignored.
            while let Some(Ok(Some(message))) = tokio::select! {
                message = messages.message() => Some(message),
                () = listened.cancelled() => None,
            } {
                let (Some(message), Ok(room)) = (message.message, inbox.clone().acquire_owned().await) else {
                    continue;
                };
                execution.said(&worker, connection, message, room);
            }
            drop(place);
            execution.disconnected(&worker, connection);
        });
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::map(answers, Ok))))
    }
}

/// A stream, and a token that is cancelled when the stream ends or is dropped: the worker left, or the farm dropped it.
fn until_dropped<S: Stream + Unpin>(mut stream: S) -> (impl Stream<Item = S::Item>, CancellationToken) {
    let token = CancellationToken::new();
    let guard = token.clone().drop_guard();
    let mut guard = Some(guard);
    let stream = futures::stream::poll_fn(move |context| {
        let next = stream.poll_next_unpin(context);
        if matches!(next, Poll::Ready(None)) {
            guard.take();
        }
        next
    });
    (stream, token)
}

/// Restricts a worker to what its certificate allows, whatever it registers.
fn bound(mut register: v1::Register, identity: &kiln_auth::Identity) -> Result<v1::Register, Status> {
    if !identity.tenant.is_empty() {
        if let Some(other) = register.tenants.iter().find(|tenant| **tenant != identity.tenant) {
            return Err(Status::permission_denied(format!(
                "worker `{}` is bound to tenant `{}` by its certificate, but registers for tenant `{other}`; start it without `--tenant`",
                register.worker, identity.tenant
            )));
        }
        register.tenants = vec![identity.tenant.clone()];
    }
    if let Some(pool) = &identity.pool {
        let labels = &mut register.environment.get_or_insert_default().labels;
        let label = labels.entry(POOL_LABEL.to_owned()).or_insert_with(|| pool.clone());
        if label != pool {
            return Err(Status::permission_denied(format!(
                "worker `{}` is bound to pool `{pool}` by its certificate, but has the label `{POOL_LABEL}={label}`; start it without that label",
                register.worker
            )));
        }
    }
    Ok(register)
}

pub(crate) fn check(register: &v1::Register) -> Result<(), Status> {
    if register.worker.is_empty() {
        return Err(Status::invalid_argument("a worker needs a name: give it `--name`"));
    }
    let too_large = |what: String| Err(Status::resource_exhausted(format!("a worker registers with {what}")));
    let name_bytes = register.worker.len().max(register.version.len());
    if name_bytes > MAX_NAME_BYTES {
        return too_large(format!("a name or version of {name_bytes} bytes; expected at most {MAX_NAME_BYTES}"));
    }
    if register.session.len() > MAX_NAME_BYTES || register.tenants.len() > MAX_TENANTS {
        return too_large(format!("more than {MAX_TENANTS} tenants, or a session of more than {MAX_NAME_BYTES} bytes"));
    }
    for tenant in &register.tenants {
        kiln_auth::check_name("tenant", tenant).map_err(Status::invalid_argument)?;
    }
    if register.running.len() > MAX_RUNNING {
        return too_large(format!("{} leases; expected at most {MAX_RUNNING}", register.running.len()));
    }
    let environment_bytes = register.environment.as_ref().map_or(0, prost::Message::encoded_len);
    if environment_bytes > MAX_ENVIRONMENT_BYTES {
        return too_large(format!(
            "tools and labels of {environment_bytes} bytes; expected at most {MAX_ENVIRONMENT_BYTES}"
        ));
    }
    let capacity = register.capacity.unwrap_or_default();
    if capacity.milli_cpus == 0 || capacity.memory_bytes == 0 {
        return Err(Status::invalid_argument(format!("worker `{}` offers no CPU or no memory", register.worker)));
    }
    if register.environment.is_none() {
        return Err(Status::invalid_argument(format!("worker `{}` does not report its environment", register.worker)));
    }
    Ok(())
}
