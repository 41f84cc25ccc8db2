//! Another coordinator: connections to it, and calls over them.
//!
//! Invariant: each call is sealed for what that coordinator has issued lately, with another number and, where its request is one message, for
//! that request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use kiln_auth::relay::{HEADER, LEAST, OVER, Relayed, Sealer};
use kiln_proto::channel::{MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES};
use kiln_proto::descriptors;
use kiln_proto::v1::ChallengeRequest;
use kiln_proto::v1::coordinators_client::CoordinatorsClient;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::dial::{Dial, LIFE};

/// Calls in progress on one connection, below the number that the other end allows; beyond that there is another connection.
const CALLS: usize = 200;
/// How long a challenge is used: calls may still be on their way when it is over here.
const USED: Duration = Duration::from_secs(LEAST.as_secs() / 2);
/// How long a coordinator may take to issue one.
const ISSUED: Duration = Duration::from_secs(3);
/// How often a call is sealed: again if the challenge has become worthless in the meantime, as when the other coordinator was restarted.
const TRIES: usize = 3;

/// Why a call was not answered by the coordinator that it was for.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The call ended before that.
    #[error("{}", .0.message())]
    Ended(Status),
}

/// Another coordinator, and what is in progress there.
#[derive(Debug)]
pub(crate) struct Peer {
    address: String,
    dial: Arc<Dial>,
    connections: Mutex<Vec<Connection>>,
    asked: Mutex<Option<Asked>>,
    used: Mutex<Instant>,
}

/// A connection, and the calls in progress on it.
#[derive(Debug, Clone)]
struct Connection {
    channel: Channel,
    calls: Arc<AtomicUsize>,
    /// When the certificate was issued that it shows, also when it connects again.
    made: Instant,
}

/// A challenge that was asked for.
#[derive(Debug)]
struct Asked {
    at: Instant,
    answer: Shared<BoxFuture<'static, Result<Arc<Sealer>, Error>>>,
}

impl Asked {
    /// Whether to wait for it or use it, instead of asking again.
    fn is_good(&self) -> bool {
        let age = self.at.elapsed();
        match self.answer.peek() {
            None => age < ISSUED,
            Some(answer) => answer.is_ok() && age < USED,
        }
    }
}

/// One of the calls in progress: on a connection, and among all that this coordinator makes.
#[derive(Debug)]
pub(crate) struct Place {
    calls: Arc<AtomicUsize>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peer {
    pub(crate) fn at(address: &str, dial: Arc<Dial>) -> Self {
        let (connections, asked) = (Mutex::default(), Mutex::default());
        Self { address: address.to_owned(), dial, connections, asked, used: Mutex::new(Instant::now()) }
    }

    /// How long ago it was called last.
    pub(crate) fn idle(&self) -> Duration {
        self.used.lock().elapsed()
    }

    /// Asks for another challenge at the next call: the coordinator may be another process now.
    pub(crate) fn forget(&self) {
        *self.asked.lock() = None;
    }

    fn connection(&self) -> anyhow::Result<(Channel, Arc<AtomicUsize>)> {
        let mut connections = self.connections.lock();
        let is_new = |connection: &Connection| connection.made.elapsed().saturating_mul(2) < LIFE;
        connections.retain(|connection| is_new(connection) || connection.calls.load(Ordering::Relaxed) > 0);
        let least = connections.iter().filter(|connection| is_new(connection));
        let least = least.min_by_key(|connection| connection.calls.load(Ordering::Relaxed));
        let found = least.filter(|connection| connection.calls.load(Ordering::Relaxed) < CALLS).cloned();
        let Connection { channel, calls, .. } = match found {
            Some(found) => found,
            None => {
                let channel = self.dial.connect(&self.address)?;
                let new = Connection { channel, calls: Arc::default(), made: Instant::now() };
                connections.push(new.clone());
                new
            }
        };
        calls.fetch_add(1, Ordering::Relaxed);
        Ok((channel, calls))
    }

    /// What calls are sealed with, for now.
    async fn sealer(&self, channel: &Channel) -> Result<Arc<Sealer>, Error> {
        let answer = {
            let mut asked = self.asked.lock();
            match asked.as_ref().filter(|asked| asked.is_good()) {
                Some(asked) => asked.answer.clone(),
                None => {
                    let answer = ask(self.dial.clone(), self.address.clone(), channel.clone()).boxed().shared();
                    *asked = Some(Asked { at: Instant::now(), answer: answer.clone() });
                    answer
                }
            }
        };
        answer.await
    }

    /// Makes a call on behalf of this caller.
    ///
    /// # Errors
    /// If the coordinator cannot be reached; `RESOURCE_EXHAUSTED` if the request or the number of calls is too large.
    pub(crate) async fn call(
        &self,
        caller: &Relayed,
        call: http::Request<Body>,
    ) -> Result<(http::Response<Body>, Place), Error> {
        *self.used.lock() = Instant::now();
        let room = self.dial.room().map_err(Error::Ended)?;
        let (channel, calls) = self.connection().map_err(|error| Error::Unreachable(format!("{error:#}")))?;
        let place = Place { calls, _room: room };
        let (mut parts, body) = call.into_parts();
        parts.extensions.clear();
        let mut stream = None;
        let mut message = Bytes::new();
        match descriptors::streams_requests(parts.uri.path()) {
            true => stream = Some(body),
            false => message = one_message(body).await.map_err(Error::Ended)?,
        }
        for _ in 0..TRIES {
            let sealer = self.sealer(&channel).await?;
            let sealed = stream.is_none().then_some(&message[..]);
            parts.headers.insert(HEADER, sealer.seal(caller, parts.uri.path(), sealed).map_err(Error::Ended)?);
            let is_stream = stream.is_some();
            let body = stream.take().unwrap_or_else(|| Body::new(Full::new(message.clone())));
            let answer = send(channel.clone(), http::Request::from_parts(parts.clone(), body)).await?;
            if !is_over(&answer) {
                return Ok((answer, place));
            }
            self.forget();
            if is_stream {
                break;
            }
        }
        Err(Error::Ended(Status::unavailable(format!(
            "the coordinator at `{}` is another process than before, or this one was stopped for a while: try again",
            self.address
        ))))
    }
}

/// Whether a call had no effect because its seal's challenge is over.
fn is_over(answer: &http::Response<Body>) -> bool {
    answer.headers().contains_key(OVER) && status(answer) == Some(Code::Unauthenticated)
}

async fn ask(dial: Arc<Dial>, address: String, channel: Channel) -> Result<Arc<Sealer>, Error> {
    let mut asked = CoordinatorsClient::new(channel);
    let answer = match tokio::time::timeout(ISSUED, Box::pin(asked.challenge(ChallengeRequest {}))).await {
        Ok(answer) => answer.map_err(|status| Error::Unreachable(words(&status)))?,
        Err(_) => return Err(Error::Unreachable(format!("no answer within {} s", ISSUED.as_secs()))),
    };
    Sealer::new(dial.key().clone(), &address, &answer.into_inner().challenge).map(Arc::new).map_err(Error::Ended)
}

fn words(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "it is of an earlier version".to_owned(),
        _ => status.message().to_owned(),
    }
}

async fn send(mut channel: Channel, call: http::Request<Body>) -> Result<http::Response<Body>, Error> {
    let unreachable = |error: tonic::transport::Error| Error::Unreachable(error.to_string());
    std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(unreachable)?;
    channel.call(call).await.map_err(unreachable)
}

async fn one_message(body: Body) -> Result<Bytes, Status> {
    let read = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
    let read = read.map_err(|error| match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(error) if error.is::<LengthLimitError>() => Status::resource_exhausted(format!(
            "a request of more than {MAX_MESSAGE_BYTES} bytes, which is the largest message that coordinators take"
        )),
        Err(error) => Status::cancelled(format!("the request broke off: {error}")),
    })?;
    Ok(read.to_bytes())
}

/// The status of an answer that consists of nothing else.
pub fn status<B>(answer: &http::Response<B>) -> Option<Code> {
    Status::from_header_map(answer.headers()).map(|status| status.code())
}
