//! `kiln.v1.Calls`: workers look up and keep the results of compiler calls, for leases whose steps are split, and entries of build tools; and
//! they have calls run on other workers.
//!
//! An entry is a result in the action cache, so it is complete or absent, counted and collected as any other. Its digest is that of no
//! action: it has a size that no blob has, and the tenant's environment is part of it. A worker can therefore keep results of calls, and
//! only for steps in the environment that it runs one in. Entries of build tools are found by the tool's word, so a space of them is a
//! project's alone.
//!
//! Invariant: what a worker names here, it may read for its lease, has sent for it, or has shown to have. An entry, and the tree of a call, are read by others for
//! their leases, so a digest that is only known would open every blob of the tenant.

use std::pin::Pin;

use futures::Stream;
use kiln_execution::{Call, ExecutionHandle, LeaseAccess, Update};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::calls_server;
use kiln_proto::{reapi, v1};
use kiln_store::Stores;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Begins what keys are hashed with, and says which rules the entries follow.
const DOMAIN: &str = "kiln.calls/1";
/// The same for entries of build tools.
const TOOLS_DOMAIN: &str = "kiln.steps/1";
/// The tools that steps have caches of.
const TOOLS: [&str; 6] = ["ccache", "go", "gradle", "nx", "sccache", "turbo"];
/// The size in an entry's digest: larger than any blob's.
const SIZE: u64 = i64::MAX as u64;
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Maximum number of keys of one request.
const MAX_KEYS: usize = 1024;
/// Maximum bytes of an entry: what compilers print is part of it.
const MAX_ENTRY_BYTES: usize = 256 << 10;
/// Maximum number of files of an entry.
const MAX_FILES: usize = 250;
/// The most room that is told: more than any step uses.
const MAX_ROOM: usize = 1024;

/// Serves a tenant's calls.
#[derive(Debug)]
pub struct Calls {
    stores: Stores,
    execution: ExecutionHandle,
}

impl Calls {
    /// Serves the calls in these stores, and runs them in this execution.
    pub fn new(stores: Stores, execution: ExecutionHandle) -> Self {
        Self { stores, execution }
    }
}

/// The lease of a call of this service.
fn lease<T>(request: &Request<T>) -> Result<LeaseAccess, Status> {
    let lease = request.extensions().get::<LeaseAccess>().cloned();
    lease.ok_or_else(|| {
        Status::permission_denied("no lease was presented; only a worker asks about calls, for a lease that it holds")
    })
}

/// Tells a worker how its call fares, until the call has ended or nobody listens.
async fn follow(
    mut lease: LeaseAccess,
    mut call: Call,
    events: mpsc::Sender<Result<v1::RunCallEvent, Status>>,
) -> Option<()> {
    use v1::run_call_event::Event;
    let tell = async |event| events.send(Ok(v1::RunCallEvent { event: Some(event) })).await.ok();
    let ran = lease.clone();
    let mut has_started = false;
    loop {
        let update = tokio::select! {
            update = call.attached.next() => update,
            () = events.closed() => return None,
            () = lease.over() => return None,
        };
        match update {
            Update::Queued if has_started => tell(Event::Requeued(true)).await?,
            Update::Queued | Update::Output { .. } | Update::Calls(_) | Update::Usage(_) => {}
            Update::Executing { worker, .. } => {
                has_started = true;
                tell(Event::Started(worker)).await?;
            }
            Update::Done(done) => {
                let response = done.response.clone();
                let files = response.result.iter().flat_map(|result| &result.output_files);
                for blob in files.flat_map(|file| Digest::required(ran.function(), file.digest.as_ref())) {
                    // Whoever had it made may read it: its maker has shown it.
                    ran.add_blob(&blob).await.ok()?;
                }
                return tell(Event::Ended(response)).await;
            }
        }
    }
}

/// Where an entry is.
fn place(lease: &LeaseAccess, tool: &str, key: &[u8], writes: bool) -> Result<Digest, Status> {
    if key.len() != KEY_BYTES {
        return Err(Status::invalid_argument(format!("a key has {KEY_BYTES} bytes, found {}", key.len())));
    }
    // An environment has no NUL, nor has a space or the name of a tool, and a key always the same length.
    let text = match tool {
        "" => [DOMAIN.as_bytes(), lease.calls()?.as_bytes(), key].join(&0),
        tool if TOOLS.contains(&tool) => {
            [TOOLS_DOMAIN.as_bytes(), tool.as_bytes(), lease.tools(writes)?.as_bytes(), key].join(&0)
        }
        _ => return Err(Status::invalid_argument(format!("unknown tool; expected one of {}", TOOLS.join(", ")))),
    };
    Ok(Digest { size: SIZE, ..DigestFunction::Sha256.digest(&text) })
}

/// The blobs that an entry names.
fn named(lease: &LeaseAccess, result: &reapi::ActionResult) -> Result<Vec<Digest>, Status> {
    let files = result.output_files.iter().map(|file| file.digest.as_ref());
    let all = files.chain(result.stdout_digest.iter().map(Some)).chain(result.stderr_digest.iter().map(Some));
    all.map(|digest| Digest::required(lease.function(), digest).map_err(crate::status::bad_digest)).collect()
}

#[tonic::async_trait]
impl calls_server::Calls for Calls {
    async fn look(&self, request: Request<v1::LookCallsRequest>) -> Result<Response<v1::LookCallsResponse>, Status> {
        let lease = lease(&request)?;
        let v1::LookCallsRequest { keys, tool } = request.into_inner();
        if keys.len() > MAX_KEYS {
            return Err(Status::invalid_argument(format!("{} keys; the farm allows at most {MAX_KEYS}", keys.len())));
        }
        let mut entries = Vec::with_capacity(keys.len());
        for key in &keys {
            let result = self.stores.cached_result(lease.instance(), &place(&lease, &tool, key, false)?).await?;
            for blob in result.iter().map(|result| named(&lease, result)).collect::<Result<Vec<_>, _>>()?.concat() {
                lease.add_blob(&blob).await?;
            }
            entries.push(v1::CallEntry { result });
        }
        Ok(Response::new(v1::LookCallsResponse { entries }))
    }

    async fn keep(&self, request: Request<v1::KeepCallRequest>) -> Result<Response<v1::KeepCallResponse>, Status> {
        let lease = lease(&request)?;
        let v1::KeepCallRequest { key, result, tool } = request.into_inner();
        let place = place(&lease, &tool, &key, true)?;
        let mut result = result.ok_or_else(|| Status::invalid_argument("the entry has no result"))?;
        let is_plain =
            result.output_directories.is_empty() && result.output_symlinks.is_empty() && result.exit_code == 0;
        if !is_plain || result.output_files.len() > MAX_FILES || result.encoded_len() > MAX_ENTRY_BYTES {
            return Err(Status::invalid_argument(format!(
                "the result of a call has exit code 0, at most {MAX_FILES} files, no directories or links, and {} KiB",
                MAX_ENTRY_BYTES >> 10
            )));
        }
        let blobs = named(&lease, &result)?;
        lease.has_all(&blobs).await?;
        let _hold = self.stores.in_use.begin();
        if let Some(missing) = self.stores.blobs.find_missing(&blobs).await?.first() {
            return Err(Status::failed_precondition(format!(
                "blob `{missing}` of the entry is not stored; upload it first"
            )));
        }
        // Whoever wonders about an entry finds out who made it.
        let metadata = result.execution_metadata.get_or_insert_default();
        lease.worker().clone_into(&mut metadata.worker);
        self.stores.actions.put(lease.instance(), &place, result).await?;
        Ok(Response::new(v1::KeepCallResponse {}))
    }

    async fn room(&self, request: Request<v1::CallRoomRequest>) -> Result<Response<v1::CallRoomResponse>, Status> {
        let room = self.execution.room_for_calls(&lease(&request)?).await?;
        Ok(Response::new(v1::CallRoomResponse { calls: room.min(MAX_ROOM) as u32 }))
    }

    type RunStream = Pin<Box<dyn Stream<Item = Result<v1::RunCallEvent, Status>> + Send>>;

    async fn run(&self, request: Request<v1::RunCallRequest>) -> Result<Response<Self::RunStream>, Status> {
        let lease = lease(&request)?;
        let v1::RunCallRequest { command, input_root, memory_bytes } = request.into_inner();
        let command = command.ok_or_else(|| Status::invalid_argument("the call has no command"))?;
        let root = Digest::required(lease.function(), input_root.as_ref()).map_err(crate::status::bad_digest)?;
        let call = self.execution.run_call(&lease, command, root, memory_bytes).await?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(follow(lease, call, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
