//! Calls that are passed on to the coordinator that leads.
//!
//! Invariant: a call goes to the leader as it came, with its caller in place of its credentials, and ends when that leader leads no more.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use kiln_auth::relay::{Answered, HEADER, Relayed};
use kiln_auth::{Caller, FarmKey, Guarded, Identity};
use kiln_replicas::Replicas;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::peers::{LIFE, Peers};

/// Calls in progress on one connection, below the number that the other end allows; beyond that there is another connection.
const CALLS: usize = 200;

/// The way to one leader. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: FarmKey,
    address: String,
    peers: Peers,
    /// Are told when this leader seems to be none any more.
    replicas: Replicas,
    connections: Mutex<Vec<Connection>>,
    /// Cancelled when this leader leads no more, as far as is known.
    over: CancellationToken,
}

/// A connection, and the calls in progress on it.
#[derive(Debug, Clone)]
struct Connection {
    channel: Channel,
    calls: Arc<AtomicUsize>,
    /// When the certificate was issued that it shows, also when it connects again.
    made: Instant,
}

/// One of the calls in progress on a connection.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Relay {
    /// To the coordinator at this URL. Connects when there are calls.
    pub fn to(address: &str, key: FarmKey, peers: Peers, replicas: Replicas) -> Self {
        let (connections, over) = (Mutex::default(), CancellationToken::new());
        Self(Arc::new(Inner { key, address: address.to_owned(), peers, replicas, connections, over }))
    }

    /// The URL of the coordinator that calls are passed on to.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Ends all calls in progress: their callers call again.
    pub fn end(&self) {
        self.0.over.cancel();
    }

    fn connection(&self) -> anyhow::Result<(Channel, Place)> {
        let mut connections = self.0.connections.lock();
        let is_new = |connection: &Connection| connection.made.elapsed() < LIFE / 2;
        connections.retain(|connection| is_new(connection) || connection.calls.load(Ordering::Relaxed) > 0);
        let least = connections.iter().filter(|connection| is_new(connection));
        let least = least.min_by_key(|connection| connection.calls.load(Ordering::Relaxed));
        let found = least.filter(|connection| connection.calls.load(Ordering::Relaxed) < CALLS).cloned();
        let Connection { channel, calls, .. } = match found {
            Some(found) => found,
            None => {
                let channel = self.0.peers.connect(&self.0.address)?;
                let new = Connection { channel, calls: Arc::default(), made: Instant::now() };
                connections.push(new.clone());
                new
            }
        };
        calls.fetch_add(1, Ordering::Relaxed);
        Ok((channel, Place(calls)))
    }

    /// Passes a call on.
    pub async fn pass(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
        let passing = self.try_pass(request);
        let answer = tokio::select! {
            answer = passing => answer,
            () = self.0.over.cancelled() => Err(changed()),
        };
        let (answer, place) = match answer {
            Ok(answer) => answer,
            Err(refused) => {
                self.0.replicas.doubt();
                return Ok(refused.into_http());
            }
        };
        if status(&answer) == Some(Code::Unavailable) {
            self.0.replicas.doubt();
        }
        let (over, replicas) = (self.0.over.clone(), self.0.replicas.clone());
        let end = Box::pin(async move {
            // For as long as the answer lasts.
            let _place = place;
            over.cancelled().await;
            changed()
        });
        let mut answer = answer.map(|body| Body::new(Guarded::new(Whole(Some(body), replicas), end)));
        answer.extensions_mut().insert(Answered);
        Ok(answer)
    }

    async fn try_pass(&self, request: http::Request<Body>) -> Result<(http::Response<Body>, Place), Status> {
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(AUTHORIZATION);
        parts.headers.remove(HEADER);
        // A call that needs no identity comes from somewhere, too.
        let nobody = || Identity { roles: BTreeSet::new(), ..Identity::anonymous() };
        let identity = parts.extensions.get::<Identity>().cloned().unwrap_or_else(nobody);
        let address = parts.extensions.get::<Caller>().and_then(|caller| caller.address);
        let relayed = Relayed { identity, address };
        parts.headers.insert(HEADER, relayed.seal(&self.0.key, parts.uri.path())?);
        parts.extensions.clear();
        let unreachable = |error: &dyn std::fmt::Display| {
            tracing::debug!(%error, "cannot pass a call on to the coordinator that leads");
            Status::unavailable(
                "the coordinator that leads the farm cannot be reached from this one; if it is gone, another takes over within seconds: \
                 try again",
            )
        };
        let (mut channel, place) = self.connection().map_err(|error| unreachable(&format!("{error:#}")))?;
        std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| unreachable(&error))?;
        let answer = channel.call(http::Request::from_parts(parts, body)).await.map_err(|error| unreachable(&error))?;
        Ok((answer, place))
    }
}

/// The body of an answer that was passed on: if it breaks off, the caller is told so in words, as by the leader itself.
struct Whole(Option<Body>, Replicas);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = self.0.as_mut() else { return Poll::Ready(None) };
        let error = match ready!(Pin::new(body).poll_frame(context)) {
            Some(Err(error)) => error,
            other => return Poll::Ready(other),
        };
        tracing::debug!(%error, "an answer of the coordinator that leads broke off");
        self.0 = None;
        self.1.doubt();
        let mut trailers = http::HeaderMap::new();
        let status = Status::unavailable(
            "the coordinator that leads the farm is gone; another takes over within seconds: try again",
        );
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

/// The status of an answer that consists of nothing else.
pub fn status<B>(answer: &http::Response<B>) -> Option<Code> {
    Status::from_header_map(answer.headers()).map(|status| status.code())
}

fn changed() -> Status {
    Status::unavailable("this coordinator does not pass calls on to that leader any more; try again")
}
