//! `google.devtools.build.v1.PublishBuildEvent`: a tool's events as they happen.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use kiln_proto::bes;
use kiln_proto::bes::build_event::Event;
use kiln_proto::bes::publish_build_event_server::PublishBuildEvent;
use kiln_proto::build_events::BuildEvent;
use kiln_proto::elements;
use tokio::sync::{Mutex as Turn, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::invocations::Invocations;
use crate::open::Open;

/// Events that are taken in at once.
const EVENTS: usize = 256;
/// Time between two commits of a stream, and for each MiB of a commit more.
const PAUSE: Duration = Duration::from_millis(100);
/// Events that wait for an answer, until no more are read.
const UNANSWERED: usize = 16 << 10;
/// Longest id of an invocation, and of a build.
const MAX_ID: usize = 64;
const MAX_BUILD_ID: usize = 256;
/// How long a tool may say nothing, or listen to no answer.
const IDLE: Duration = Duration::from_secs(6 * 3600);

/// Receives a tenant's events.
#[derive(Debug)]
pub struct Publish {
    invocations: Invocations,
}

impl Publish {
    /// Adds to these invocations.
    pub fn new(invocations: Invocations) -> Self {
        Self { invocations }
    }
}

type Answers = mpsc::Sender<Result<bes::PublishBuildToolEventStreamResponse, Status>>;

/// An id as tools make them: UUIDs.
fn valid(id: &str) -> Result<(), Status> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(is_plain) {
        return Ok(());
    }
    let words = format!("the invocation id has letters, digits and `-`, at most {MAX_ID}");
    Err(Status::invalid_argument(words))
}

/// The events of one stream.
struct Receiving {
    invocations: Invocations,
    publisher: String,
    open: Option<(bes::StreamId, Arc<Turn<Open>>)>,
    /// Events that are not committed yet.
    unanswered: Vec<i64>,
    is_finished: bool,
    /// The number of the last event of this stream.
    last: Option<i64>,
}

impl Receiving {
    async fn take(&mut self, event: bes::OrderedBuildEvent) -> Result<(), Status> {
        let stream = event.stream_id.ok_or_else(|| Status::invalid_argument("the event has no stream"))?;
        if event.sequence_number < 1 {
            return Err(Status::invalid_argument("events are numbered from 1"));
        }
        // Whoever connects again begins where he likes; what is known already is passed over.
        if self.is_finished || self.last.is_some_and(|last| last.checked_add(1) != Some(event.sequence_number)) {
            let words = "the events of a stream are numbered one by one, and none comes after its end";
            return Err(Status::invalid_argument(words));
        }
        self.last = Some(event.sequence_number);
        let open = match &self.open {
            Some((begun, open)) if *begun == stream => open.clone(),
            Some(_) => return Err(Status::invalid_argument("all events of a stream have the same stream id")),
            None => {
                valid(&stream.invocation_id)?;
                if stream.build_id.len() > MAX_BUILD_ID {
                    return Err(Status::invalid_argument(format!("the build id is longer than {MAX_BUILD_ID} bytes")));
                }
                let open = self.invocations.open(&stream.invocation_id, &self.publisher).await?;
                self.open = Some((stream, open.clone()));
                open
            }
        };
        let mut open = open.lock().await;
        if open.publisher() != self.publisher {
            return Err(Status::permission_denied("this invocation was begun by somebody else"));
        }
        let told = match event.event.and_then(|event| event.event) {
            Some(Event::BazelEvent(any)) => {
                let decoded =
                    elements::decode::<BuildEvent>(&elements::BUILD_EVENT, &any.value, elements::MAX_OF_EVENT);
                Some(decoded.map_err(|error| Status::invalid_argument(format!("the event is not Bazel's: {error}")))?)
            }
            Some(Event::ComponentStreamFinished(_)) => {
                self.is_finished = true;
                None
            }
            None => None,
        };
        open.take(event.sequence_number, told);
        self.unanswered.push(event.sequence_number);
        Ok(())
    }

    /// Commits what has arrived and answers it. When the next commit may be; `None` if nobody listens.
    async fn commit(&mut self, answers: &Answers) -> Result<Option<Duration>, Status> {
        let Some((stream, open)) = &self.open else { return Ok(Some(PAUSE)) };
        let mut open = open.lock().await;
        let bytes = open.bytes();
        open.commit().await?;
        drop(open);
        for sequence_number in self.unanswered.drain(..) {
            let stream_id = Some(stream.clone());
            let answer = bes::PublishBuildToolEventStreamResponse { stream_id, sequence_number };
            let sent = tokio::time::timeout(IDLE, answers.send(Ok(answer))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Ok(None);
            }
        }
        Ok(Some(PAUSE.saturating_add(PAUSE.saturating_mul(u32::try_from(bytes >> 17).unwrap_or(u32::MAX)))))
    }

    async fn arrived(&mut self, request: bes::PublishBuildToolEventStreamRequest) -> Result<(), Status> {
        let event = request.ordered_build_event;
        self.take(event.ok_or_else(|| Status::invalid_argument("the request has no event"))?).await
    }

    async fn run(
        &mut self,
        incoming: Streaming<bes::PublishBuildToolEventStreamRequest>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let mut incoming = incoming.fuse();
        let (mut due, mut heard) = (Instant::now(), Instant::now());
        loop {
            let is_waiting = !self.unanswered.is_empty();
            tokio::select! {
                arrived = incoming.next(), if self.unanswered.len() < UNANSWERED => {
                    let Some(arrived) = arrived else { break };
                    self.arrived(arrived?).await?;
                    // Those that are there already; one at a time, since each can be large.
                    for _ in 1..EVENTS {
                        let Some(Some(arrived)) = incoming.next().now_or_never() else { break };
                        self.arrived(arrived?).await?;
                    }
                    heard = Instant::now();
                }
                () = tokio::time::sleep_until(due), if is_waiting => {}
                () = tokio::time::sleep(IDLE.saturating_sub(heard.elapsed())) => {
                    return Err(Status::deadline_exceeded("the tool has said nothing for hours"));
                }
                () = answers.closed() => break,
            }
            if !self.unanswered.is_empty() && (self.is_finished || Instant::now() >= due) {
                let Some(pause) = self.commit(answers).await? else { break };
                due = Instant::now().checked_add(pause).unwrap_or(due);
            }
        }
        self.commit(answers).await.map(drop)
    }
}

#[tonic::async_trait]
impl PublishBuildEvent for Publish {
    async fn publish_lifecycle_event(
        &self,
        request: Request<bes::PublishLifecycleEventRequest>,
    ) -> Result<Response<()>, Status> {
        // What they say is in the tool's own events as well.
        let event = request.into_inner().build_event;
        event.ok_or_else(|| Status::invalid_argument("the request has no event"))?;
        Ok(Response::new(()))
    }

    type PublishBuildToolEventStreamStream =
        Pin<Box<dyn Stream<Item = Result<bes::PublishBuildToolEventStreamResponse, Status>> + Send>>;

    async fn publish_build_tool_event_stream(
        &self,
        request: Request<Streaming<bes::PublishBuildToolEventStreamRequest>>,
    ) -> Result<Response<Self::PublishBuildToolEventStreamStream>, Status> {
        let publisher = kiln_auth::identity(&request).name;
        let mut receiving = Receiving {
            invocations: self.invocations.clone(),
            publisher,
            open: None,
            unanswered: Vec::new(),
            is_finished: false,
            last: None,
        };
        let (answers, receiver) = mpsc::channel(EVENTS);
        tokio::spawn(async move {
            if let Err(status) = receiving.run(request.into_inner(), &answers).await {
                // What came before is kept.
                if !receiving.unanswered.is_empty() {
                    let _ = receiving.commit(&answers).await;
                }
                let _ = answers.send(Err(status)).await;
            }
            if let Some((stream, open)) = receiving.open.take() {
                receiving.invocations.close(&stream.invocation_id, open);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
