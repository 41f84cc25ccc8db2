//! REAPI `Execution`, with `google.longrunning.Operations`.
//!
//! Invariant: `done` is sent exactly with the stage COMPLETED, after which the stream ends; `Operation.error` is never
//! set.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::longrunning::operation::Result as OperationResult;
use kiln_proto::longrunning::{self, Operation, operations_server};
use kiln_proto::protobuf::{Any, Empty};
use kiln_proto::reapi;
use kiln_proto::reapi::execution_server;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use super::asked::{Asked, Keeps};
use super::metadata;
use kiln_auth::audit::Subject;
use kiln_execution::log::LiveLogs;
use kiln_execution::{Attached, ExecutionHandle, Update, failed};
use kiln_image_actions::{ImageActions, InRoot, Runs};

/// Default time for which an execution continues after its clients have left: they can return with `WaitExecution`.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(30);
/// Minimum interval between checks for waiting clients; normally a part of that time.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a finished operation can be queried.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Limits on finished operations that can be queried: their number, and the bytes of their answers.
const REMEMBERED: usize = 10_000;
const REMEMBERED_BYTES: usize = 256 << 20;

/// Size of one page of operations: below gRPC's usual message limit.
const PAGE_BYTES: usize = 3 << 20;
/// Maximum size of a refusal's details in a gRPC status.
const MAX_DETAIL_BYTES: usize = 4096;

const METADATA_TYPE: &str = "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteOperationMetadata";
const RESPONSE_TYPE: &str = "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse";

#[derive(Debug)]
struct Entry {
    state: watch::Receiver<Operation>,
    cancel: CancellationToken,
    /// The action's name in the audit log.
    action: String,
}

impl Entry {
    fn subject(&self, name: &str) -> String {
        format!("{name}: {}", self.action)
    }
}

/// All operations that can be queried, and the order in which finished ones are forgotten.
#[derive(Debug, Default)]
struct Known {
    entries: HashMap<String, Arc<Entry>>,
    finished: VecDeque<Finished>,
    finished_bytes: usize,
}

#[derive(Debug)]
struct Finished {
    name: String,
    at: Instant,
    bytes: usize,
}

impl Known {
    fn finish(&mut self, name: String, bytes: usize) {
        self.finished.push_back(Finished { name, at: Instant::now(), bytes });
        self.finished_bytes += bytes;
        self.forget();
    }

    /// Forgets operations that finished long ago, and the oldest beyond the limits.
    fn forget(&mut self) {
        while let Some(oldest) = self.finished.front() {
            let too_much = self.finished.len() > REMEMBERED || self.finished_bytes > REMEMBERED_BYTES;
            if !too_much && oldest.at.elapsed() < REMEMBERED_FOR {
                return;
            }
            let Some(Finished { name, bytes, .. }) = self.finished.pop_front() else { return };
            self.finished_bytes -= bytes;
            self.entries.remove(&name);
        }
    }
}

/// Serves executions and their operations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Execution {
    execution: ExecutionHandle,
    abandoned_after: Duration,
    stopping: CancellationToken,
    operations: Arc<Mutex<Known>>,
    images: Arc<ImageActions>,
    keeps: Keeps,
}

type Operations = Pin<Box<dyn Stream<Item = Result<Operation, Status>> + Send>>;

impl Execution {
    /// Runs actions in this execution. An action that no client has waited for during `abandoned_after` is cancelled;
    /// when `stopping` is cancelled, waiting clients are told to retry.
    /// Actions that name an image become others by `images`. Those that an invocation of Bazel asks for are told to `keeps`.
    pub(crate) fn new(
        execution: ExecutionHandle,
        images: ImageActions,
        keeps: Keeps,
        abandoned_after: Duration,
        stopping: CancellationToken,
    ) -> Self {
        Self { execution, abandoned_after, stopping, operations: Arc::default(), images: Arc::new(images), keeps }
    }

    /// The states of an operation from now on, ending after `done`.
    fn states(&self, entry: &Entry) -> Operations {
        states(entry.state.clone(), self.stopping.clone())
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, Status> {
        let unknown = || Status::not_found(format!("no operation `{name}`; execute the action again"));
        self.operations.lock().entries.get(name).cloned().ok_or_else(unknown)
    }

    fn start(
        &self,
        instance: &str,
        digest: Digest,
        (in_root, asked): (Option<InRoot>, Option<Asked>),
        attached: Attached,
    ) -> Arc<Entry> {
        let name = format!("operations/{}", uuid::Uuid::new_v4());
        let first = operation(&name, instance, &digest, Stage::Queued, None);
        let (sender, state) = watch::channel(first);
        let cancel = CancellationToken::new();
        let entry = Arc::new(Entry { state, cancel: cancel.clone(), action: super::action(instance, &digest) });
        {
            let mut operations = self.operations.lock();
            operations.forget();
            operations.entries.insert(name.clone(), entry.clone());
        }
        let abandoned_after = self.abandoned_after;
        let notes = attached.notes.clone();
        let instance = instance.to_owned();
        let in_root = in_root.map(|ran| (self.images.clone(), ran));
        let follower = Follower { name, instance, digest, in_root, asked, sender, cancel, abandoned_after, notes };
        let (operations, watched) = (self.operations.clone(), entry.clone());
        tokio::spawn(async move {
            let name = follower.name.clone();
            // The entry's own receiver keeps the state readable; clients' receivers are counted separately.
            follower.follow(attached).await;
            let bytes = watched.state.borrow().encoded_len();
            operations.lock().finish(name, bytes);
        });
        entry
    }
}

/// Updates an operation's state until it is done.
struct Follower {
    name: String,
    instance: String,
    digest: Digest,
    /// The action that runs in its place, if one does.
    in_root: Option<(Arc<ImageActions>, InRoot)>,
    /// Who asks for it.
    asked: Option<Asked>,
    sender: watch::Sender<Operation>,
    cancel: CancellationToken,
    abandoned_after: Duration,
    /// Notes on how the action's properties were interpreted.
    notes: Vec<String>,
}

impl Follower {
    async fn follow(self, mut attached: Attached) {
        let abandoned = abandoned(&self.sender, self.abandoned_after);
        tokio::pin!(abandoned);
        loop {
            let update = tokio::select! {
                update = attached.next() => update,
                () = self.cancel.cancelled() => {
                    return self.done(failed(Code::Cancelled, "the operation was cancelled"));
                }
                () = &mut abandoned => {
                    return self.done(failed(Code::Cancelled, "no client was waiting for the operation any more"));
                }
            };
            let (stage, lease) = match update {
                Update::Queued => (Stage::Queued, None),
                Update::Executing { lease, .. } => (Stage::Executing, Some(lease)),
                Update::Output { .. } | Update::Calls(_) | Update::Usage(_) => continue,
                Update::Done(done) => {
                    if let Some((images, ran)) = &self.in_root {
                        images.keep(&self.instance, &self.digest, ran, &done.response).await;
                    }
                    return self.done(done.response.clone());
                }
            };
            self.sender.send_replace(operation(&self.name, &self.instance, &self.digest, stage, lease));
        }
    }

    fn done(&self, mut response: reapi::ExecuteResponse) {
        if response.message.is_empty() && !self.notes.is_empty() {
            response.message = format!("platform properties: {}", self.notes.join("; "));
        }
        if let Some(asked) = &self.asked {
            asked.ended(&self.instance, &self.digest, &response);
        }
        let operation = operation(&self.name, &self.instance, &self.digest, Stage::Completed, None);
        self.sender.send_replace(completed(operation, &response));
    }
}

/// Completes when only the registry itself has had a receiver for this long.
async fn abandoned(sender: &watch::Sender<Operation>, after: Duration) {
    let mut alone = None;
    loop {
        tokio::time::sleep((after / 10).clamp(LOOK_EVERY, ABANDONED_AFTER)).await;
        alone = if sender.receiver_count() <= 1 { alone.or_else(|| Some(Instant::now())) } else { None };
        if alone.is_some_and(|since: Instant| since.elapsed() >= after) {
            return;
        }
    }
}

use reapi::execution_stage::Value as Stage;

fn operation(name: &str, instance: &str, digest: &Digest, stage: Stage, lease: Option<u64>) -> Operation {
    let (stdout_stream_name, stderr_stream_name) =
        lease.map(|lease| LiveLogs::names(instance, lease)).unwrap_or_default();
    let metadata = reapi::ExecuteOperationMetadata {
        stage: stage as i32,
        action_digest: Some(digest.to_wire()),
        digest_function: digest.function.to_wire(),
        stdout_stream_name,
        stderr_stream_name,
        ..Default::default()
    };
    Operation {
        name: name.to_owned(),
        metadata: Some(Any { type_url: METADATA_TYPE.to_owned(), value: metadata.encode_to_vec() }),
        done: false,
        result: None,
    }
}

/// An operation that failed before it started, for a refusal too large for a header.
fn refused(instance: &str, digest: &Digest, status: &Status) -> Operations {
    let name = format!("operations/{}", uuid::Uuid::new_v4());
    let status = Some(kiln_proto::precondition::from_tonic(status));
    let response = reapi::ExecuteResponse { status, ..Default::default() };
    let operation = completed(operation(&name, instance, digest, Stage::Completed, None), &response);
    Box::pin(tokio_stream::once(Ok(operation)))
}

fn completed(mut operation: Operation, response: &reapi::ExecuteResponse) -> Operation {
    operation.done = true;
    let any = Any { type_url: RESPONSE_TYPE.to_owned(), value: response.encode_to_vec() };
    operation.result = Some(OperationResult::Response(any));
    operation
}

fn states(mut state: watch::Receiver<Operation>, stopping: CancellationToken) -> Operations {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    state.mark_changed();
    tokio::spawn(async move {
        loop {
            // A state that is available is sent before the shutdown error.
            let goes_on = tokio::select! {
                biased;
                () = sender.closed() => return,
                changed = state.changed() => changed.is_ok(),
                () = stopping.cancelled() => false,
            };
            if !goes_on {
                let _ = sender
                    .send(Err(Status::unavailable("the coordinator is shutting down; execute the action again")))
                    .await;
                return;
            }
            let operation = state.borrow_and_update().clone();
            let done = operation.done;
            if sender.send(Ok(operation)).await.is_err() || done {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

#[tonic::async_trait]
impl execution_server::Execution for Execution {
    type ExecuteStream = Operations;
    type WaitExecutionStream = Operations;

    async fn execute(&self, request: Request<reapi::ExecuteRequest>) -> Result<Response<Operations>, Status> {
        let mut who = metadata::read(&request);
        let asked = Asked::of(&self.keeps, &request);
        let identity = kiln_auth::identity(&request);
        if !identity.is_anonymous() {
            who.tenant = identity.name;
        }
        let subject = Subject::of(&request);
        let request = request.into_inner();
        let function = DigestFunction::from_wire(request.digest_function)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let digest = Digest::required(function, request.action_digest.as_ref())
            .map_err(|error| Status::invalid_argument(format!("action_digest: {error}")))?;
        let instance = request.instance_name.trim_matches('/').to_owned();
        subject.is(super::action(&instance, &digest));
        let (action_digest, known, in_root) =
            match self.images.what_runs(&instance, &digest, !request.skip_cache_lookup).await? {
                Runs::Itself(known) => (digest, known, None),
                Runs::Other(other) => (other.action, other.known.clone(), Some(other)),
            };
        let attached = self
            .execution
            .execute(kiln_execution::Request {
                secrets: Vec::new(),
                agents: None,
                shell: None,
                instance: instance.clone(),
                action_digest,
                skip_cache_lookup: request.skip_cache_lookup,
                priority: request.execution_policy.map_or(0, |policy| policy.priority),
                share: who.tenant,
                build: who.invocation,
                path_weight: 0,
                queue_timeout: None,
                known: Some(known),
            })
            .await;
        let attached = match attached {
            // Clients accept headers of 8 KiB: a longer list of missing blobs is sent in an operation instead.
            Err(status) if status.details().len() > MAX_DETAIL_BYTES => {
                return Ok(Response::new(refused(&instance, &digest, &status)));
            }
            attached => attached?,
        };
        let entry = self.start(&instance, digest, (in_root, asked), attached);
        Ok(Response::new(self.states(&entry)))
    }

    async fn wait_execution(
        &self,
        request: Request<reapi::WaitExecutionRequest>,
    ) -> Result<Response<Operations>, Status> {
        let entry = self.entry(&request.into_inner().name)?;
        Ok(Response::new(self.states(&entry)))
    }
}

#[tonic::async_trait]
impl operations_server::Operations for Execution {
    async fn list_operations(
        &self,
        request: Request<longrunning::ListOperationsRequest>,
    ) -> Result<Response<longrunning::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let size = usize::try_from(request.page_size).ok().filter(|size| *size > 0).unwrap_or(1000).min(1000);
        let known = self.operations.lock();
        let mut names: Vec<&String> = known.entries.keys().filter(|name| **name > request.page_token).collect();
        names.sort_unstable();
        let (mut operations, mut bytes) = (Vec::<Operation>::new(), 0);
        let mut next = String::new();
        for entry in names.into_iter().filter_map(|name| known.entries.get(name)) {
            let operation = entry.state.borrow();
            bytes += operation.encoded_len();
            // Copies only one page, which always contains at least one operation.
            if let Some(last) = operations.last().filter(|_| operations.len() >= size || bytes > PAGE_BYTES) {
                next.clone_from(&last.name);
                break;
            }
            operations.push(operation.clone());
        }
        drop(known);
        Ok(Response::new(longrunning::ListOperationsResponse {
            operations,
            next_page_token: next,
            ..Default::default()
        }))
    }

    async fn get_operation(
        &self,
        request: Request<longrunning::GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let entry = self.entry(&request.into_inner().name)?;
        let operation = entry.state.borrow().clone();
        Ok(Response::new(operation))
    }

    async fn delete_operation(
        &self,
        request: Request<longrunning::DeleteOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        let subject = Subject::of(&request);
        let name = request.into_inner().name;
        subject.is(name.clone());
        let entry = self.entry(&name)?;
        subject.is(entry.subject(&name));
        if !entry.state.borrow().done {
            return Err(Status::failed_precondition(format!("operation `{name}` is not done; cancel it first")));
        }
        self.operations.lock().entries.remove(&name);
        Ok(Response::new(Empty {}))
    }

    async fn cancel_operation(
        &self,
        request: Request<longrunning::CancelOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        let subject = Subject::of(&request);
        let name = request.into_inner().name;
        subject.is(name.clone());
        let entry = self.entry(&name)?;
        subject.is(entry.subject(&name));
        entry.cancel.cancel();
        Ok(Response::new(Empty {}))
    }

    async fn wait_operation(
        &self,
        request: Request<longrunning::WaitOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let request = request.into_inner();
        let mut state = self.entry(&request.name)?.state.clone();
        let limit =
            request.timeout.as_ref().and_then(kiln_proto::clock::read_duration).unwrap_or(Duration::from_secs(60));
        // A timeout is not an error here: the current state is the answer.
        let _ = tokio::time::timeout(limit, state.wait_for(|operation| operation.done)).await;
        let operation = state.borrow().clone();
        Ok(Response::new(operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(operations: usize, bytes: usize) -> Known {
        let mut known = Known::default();
        for at in 0..operations {
            let (_, state) = watch::channel(Operation::default());
            known.entries.insert(
                at.to_string(),
                Arc::new(Entry { state, cancel: CancellationToken::new(), action: String::new() }),
            );
            known.finish(at.to_string(), bytes);
        }
        known
    }

    #[test]
    fn finished_operations_are_forgotten_by_their_number_and_by_their_size_the_oldest_first() {
        let many = known(3 * REMEMBERED, 100);
        assert_eq!((many.entries.len(), many.finished.len()), (REMEMBERED, REMEMBERED));
        assert!(many.entries.contains_key(&(3 * REMEMBERED - 1).to_string()) && !many.entries.contains_key("0"));
        let large = known(100, REMEMBERED_BYTES / 10);
        assert_eq!((large.entries.len(), large.finished_bytes), (10, REMEMBERED_BYTES / 10 * 10));
    }
}
