//! Calls that are passed on to the coordinator that leads.
//!
//! Invariant: a call goes to the leader as it came, with its caller in place of its credentials, and ends when that leader leads no more.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use kiln_auth::relay::{Answered, Relayed};
use kiln_auth::{Caller, Guarded, Identity};
use kiln_replicas::Replicas;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::{Code, Status};

use crate::peer::{Error, Peer, Place, status};
use crate::peers::Peers;

/// The way to one leader. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: String,
    peer: Arc<Peer>,
    /// Are told when this leader seems to be none any more.
    replicas: Replicas,
    /// Cancelled when this leader leads no more, as far as is known.
    over: CancellationToken,
}

impl Relay {
    /// To the coordinator at this URL. Connects when there are calls.
    pub fn to(address: &str, peers: &Peers, replicas: Replicas) -> Self {
        let peer = peers.at(address);
        peer.forget();
        Self(Arc::new(Inner { address: address.to_owned(), peer, replicas, over: CancellationToken::new() }))
    }

    /// The URL of the coordinator that calls are passed on to.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Ends all calls in progress: their callers call again.
    pub fn end(&self) {
        self.0.over.cancel();
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

    async fn try_pass(&self, mut request: http::Request<Body>) -> Result<(http::Response<Body>, Place), Status> {
        request.headers_mut().remove(AUTHORIZATION);
        // A call that needs no identity comes from somewhere, too.
        let nobody = || Identity { roles: BTreeSet::new(), ..Identity::anonymous() };
        let identity = request.extensions().get::<Identity>().cloned().unwrap_or_else(nobody);
        let address = request.extensions().get::<Caller>().and_then(|caller| caller.address);
        let caller = Relayed { identity, address };
        let passing = self.0.peer.call(&caller, request);
        passing.await.map_err(|error| match error {
            Error::Ended(status) => status,
            Error::Unreachable(why) => {
                tracing::debug!(why, "cannot pass a call on to the coordinator that leads");
                Status::unavailable(
                    "the coordinator that leads the farm cannot be reached from this one; if it is gone, another takes over within \
                     seconds: try again",
                )
            }
        })
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

fn changed() -> Status {
    Status::unavailable("this coordinator does not pass calls on to that leader any more; try again")
}
