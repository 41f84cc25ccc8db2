//! Answers a step's build tools from what the farm has, under the step's lease.
//!
//! Invariant: a farm that is slow or away costs a moment, and each tool goes on without it; an entry that a body was cut off from is not
//! kept.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::request;
use axum::response::Response;
use kiln_dialects::answers::{self, MAX_LIST};
use kiln_dialects::{Ask, Data, Entry, Pieces, Place, Put, Received, Refusal, Room, Tool};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::Blob;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::ReaderStream;
use tokio_util::task::TaskTracker;

use super::early::contents;
use super::step::Step;
use super::tools::{Tools, WAIT};

/// The tools that are served inside steps. Bazel and Maven are told where their cache is by what starts them, and Go asks otherwise.
const SERVED: [Tool; 5] = [Tool::Ccache, Tool::Gradle, Tool::Nx, Tool::Sccache, Tool::Turbo];
/// Largest entry.
const MAX_ENTRY_BYTES: u64 = 256 << 20;
/// Entries of one step that are sent to the farm at once.
const SENDS: usize = 8;
/// Keys of one look-up.
const KEYS: usize = 1000;
/// How long a tool waits for the body of an entry that the farm has.
const FETCHING: Duration = Duration::from_secs(60);
/// How long an entry may be on its way to the farm.
const SENDING: Duration = Duration::from_secs(60);
/// Bytes of a refused body that are read, so that its sender reads the answer and not a broken connection.
const DRAINED: u64 = 4 << 30;

/// The caches of one step's tools. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Caches {
    step: Arc<Step>,
    room: Room,
    sends: Arc<Semaphore>,
    /// What is on its way to the farm.
    keeping: TaskTracker,
}

impl Caches {
    /// Those of a step; bodies that arrive are kept in this directory.
    pub(super) fn new(step: Arc<Step>, directory: PathBuf, keeping: TaskTracker) -> Self {
        let room = Room::new(directory, step.farm.function, MAX_ENTRY_BYTES, "the limit inside steps");
        Self { step, room, sends: Arc::new(Semaphore::new(SENDS)), keeping }
    }

    pub(super) fn router(self) -> Router {
        Router::new().fallback(handle).with_state(self)
    }

    async fn answer(
        &self,
        parts: &request::Parts,
        pieces: &mut Pieces,
        asks: &mut Option<Tool>,
    ) -> Result<Response, Refusal> {
        let place = Place::of(parts.uri.path())?;
        let tool = *asks.insert(place.tool);
        let tools = self.step.tools.as_ref().filter(|_| SERVED.contains(&tool) && place.scope.is_none());
        let tools = tools.ok_or(Refusal::Unknown)?;
        match kiln_dialects::ask(tool, &parts.method, &place.segments, &parts.headers)? {
            Ask::Answer(fixed) => Ok(answers::fixed(&fixed)),
            Ask::Ignore(fixed) => {
                pieces.whole(MAX_LIST).await?;
                Ok(answers::fixed(&fixed))
            }
            Ask::Get(key) => {
                let found = self.get(tools, tool, &key).await;
                self.step.tally.asked_by_tool(tool.name(), found.is_some());
                found.ok_or(Refusal::Missing)
            }
            Ask::Head(key) => {
                let entry = self.entry(tools, tool, &key).await.ok_or(Refusal::Missing)?;
                Ok(answers::described(&entry.body, &entry.headers, Body::empty()))
            }
            Ask::Find(key) => {
                let entry = if key.is_empty() { None } else { self.entry(tools, tool, &key).await };
                Ok(answers::properties(&key, entry.as_ref()))
            }
            Ask::List => {
                let keys = answers::listed(&pieces.whole(MAX_LIST).await?)?;
                let found = self.entries(tools, tool, &keys).await;
                Ok(answers::list(keys.into_iter().zip(found)))
            }
            Ask::Put(put) => self.put(tools, tool, put, pieces).await,
            Ask::Delete(_) => Err(Refusal::ReadOnly("entries are not removed from inside a step".to_owned())),
            Ask::Blob(..) | Ask::Result(..) => Err(Refusal::Unknown),
        }
    }

    /// The entries that the farm has under these keys.
    async fn entries(&self, tools: &Tools, tool: Tool, keys: &[String]) -> Vec<Option<Entry>> {
        let farm = &self.step.farm;
        let mut all = Vec::with_capacity(keys.len());
        for some in keys.chunks(KEYS) {
            let some: Vec<Digest> = some.iter().map(|key| digest(key)).collect();
            let found = if tools.patience.is_over() { None } else { farm.look_all(&some, tool.name(), WAIT).await };
            match found {
                Some(found) => all.extend(
                    found.into_iter().map(|result| result.and_then(|result| Entry::decode(farm.function, &result))),
                ),
                None => {
                    tools.patience.was_tried();
                    break;
                }
            }
        }
        all.resize(keys.len(), None);
        all
    }

    async fn entry(&self, tools: &Tools, tool: Tool, key: &str) -> Option<Entry> {
        self.entries(tools, tool, &[key.to_owned()]).await.pop().flatten()
    }

    /// An entry with its body, which comes by way of this worker's disk.
    async fn get(&self, tools: &Tools, tool: Tool, key: &str) -> Option<Response> {
        let entry = self.entry(tools, tool, key).await?;
        let Ok(content) = tokio::time::timeout(FETCHING, contents(&self.step, std::iter::once(entry.body))).await
        else {
            tools.patience.was_tried();
            return None;
        };
        let file = tokio::fs::File::from_std(content?.pop()?);
        Some(answers::described(&entry.body, &entry.headers, Body::from_stream(ReaderStream::new(file))))
    }

    async fn put(&self, tools: &Tools, tool: Tool, put: Put, pieces: &mut Pieces) -> Result<Response, Refusal> {
        if tools.read_only {
            let words = "this build is confined to a scope, so its steps read what is cached and store nothing";
            return Err(Refusal::ReadOnly(words.to_owned()));
        }
        if tools.patience.is_over() {
            return Err(Refusal::Full("the farm does not answer in time; try it again later".to_owned()));
        }
        if !put.replaces && self.entry(tools, tool, &put.key).await.is_some() {
            return Err(Refusal::Exists);
        }
        // Whoever sends faster than the farm takes it waits a moment.
        let Ok(Ok(turn)) = tokio::time::timeout(WAIT, self.sends.clone().acquire_owned()).await else {
            return Err(Refusal::Full("the farm takes too long to store what came before".to_owned()));
        };
        let received = self.room.receive(pieces).await?;
        let entry = Entry { body: received.digest, headers: put.headers };
        self.keeping.spawn(self.clone().keep(tool, digest(&put.key), entry, received, turn));
        Ok(answers::fixed(&put.answer))
    }

    /// Keeps an entry on the farm, while the tool goes on.
    async fn keep(self, tool: Tool, key: Digest, entry: Entry, mut received: Received, turn: OwnedSemaphorePermit) {
        let blob = match received.data() {
            Data::Memory(data) => Blob::Bytes(data.clone()),
            Data::File(file) => Blob::File(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))),
        };
        let keeping = self.step.farm.keep_of(tool.name(), vec![(entry.body, blob)], vec![(key, entry.encode())]);
        match tokio::time::timeout(SENDING, keeping).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::debug!(reason, tool = tool.name(), "an entry of a step's tool was not kept"),
            Err(_) => self.step.tools.iter().for_each(|tools| tools.patience.was_tried()),
        }
        drop((received, turn));
    }
}

/// Where the farm has the entry under a tool's key.
fn digest(key: &str) -> Digest {
    DigestFunction::Sha256.digest(key.as_bytes())
}

async fn handle(State(caches): State<Caches>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut pieces = Pieces::new(body.into_data_stream(), announced);
    let mut asks = None;
    match caches.answer(&parts, &mut pieces, &mut asks).await {
        Ok(answer) => answer,
        Err(refusal) => {
            tracing::debug!(path = parts.uri.path(), reason = refusal.words(), "refused a request of a step's tool");
            // A client that waits to be told to go on has sent nothing.
            if !parts.headers.contains_key(EXPECT) {
                pieces.drain(DRAINED).await;
            }
            answers::refused(&refusal, asks.unwrap_or(Tool::Ccache))
        }
    }
}
