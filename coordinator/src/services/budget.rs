//! Decorator of all services: what calls under way keep in memory is counted together, and bounded.
//!
//! A client can begin many messages and end none, or ask for much and read nothing: each call is small against its own limits, and
//! all of them are not. Invariant: what came of messages that are not whole, of calls that are not answered, and the largest answers
//! that nobody has read yet are never more than the budget. A call that would go beyond is refused with `RESOURCE_EXHAUSTED`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tower::Layer;

use super::MAX_BATCH_BYTES;
use kiln_auth::Identity;
use kiln_store::disk::CHUNK_BYTES;

/// Calls with a stream of messages, each of which is used before the next is read: only the present one counts.
const STREAMS: [&str; 3] = ["Write", "Link", "RegisterChunkMapping"];
/// What an answer may hold that waits for its reader, by call.
const ANSWERS: [(&str, u64); 4] = [
    ("BatchReadBlobs", MAX_BATCH_BYTES),
    ("GetTree", MAX_BATCH_BYTES),
    ("GetActionResult", CHUNK_BYTES as u64),
    ("Read", CHUNK_BYTES as u64),
];
/// Bytes before each message of gRPC: a flag and the length.
const PREFIX: usize = 5;

/// The memory of all calls together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicU64>,
    most: u64,
    /// Where `most` comes from.
    said: &'static str,
}

/// Bytes for all calls of those who need not say who they are, where others must: who may do nothing keeps nobody from doing anything.
const STRANGERS_BYTES: u64 = 16 << 20;

impl Budget {
    /// So many bytes, as `--call-memory` says.
    pub fn new(most: u64) -> Self {
        Self { used: Arc::default(), most, said: "`--call-memory`" }
    }

    fn take(&self, bytes: u64) -> Result<(), Status> {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(()),
            Err(used) => Err(Status::resource_exhausted(format!(
                "the calls under way hold {used} bytes, and {} are {}; try again when some have ended",
                self.most, self.said
            ))),
        }
    }
}

/// What one call holds of the budget; given back when it is dropped.
#[derive(Debug)]
struct Share {
    budget: Budget,
    bytes: u64,
}

impl Share {
    fn take(&mut self, bytes: u64) -> Result<(), Status> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    fn give_back(&mut self) {
        self.budget.used.fetch_sub(std::mem::take(&mut self.bytes), Ordering::AcqRel);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Services within a budget.
#[derive(Debug, Clone)]
pub struct Budgeted<S> {
    inner: S,
    layer: BudgetLayer,
}

impl Budgeted<()> {
    /// Puts services under a budget.
    pub fn layer(budget: Budget) -> BudgetLayer {
        let strangers = Budget { most: STRANGERS_BYTES, said: "for calls without an identity", ..Budget::new(0) };
        BudgetLayer { budget, strangers }
    }
}

/// Makes [`Budgeted`] services.
#[derive(Debug, Clone)]
pub struct BudgetLayer {
    budget: Budget,
    strangers: Budget,
}

impl<S> Layer<S> for BudgetLayer {
    type Service = Budgeted<S>;

    fn layer(&self, inner: S) -> Budgeted<S> {
        Budgeted { inner, layer: self.clone() }
    }
}

impl<S> Service<http::Request<Body>> for Budgeted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = request.uri().path().rsplit('/').next().unwrap_or_default();
        let answer = ANSWERS.iter().find(|(name, _)| *name == call).map_or(0, |(_, bytes)| *bytes);
        let is_stream = STREAMS.contains(&call);
        // The gate before this one knows who calls, where that is asked.
        let is_known = request.extensions().get::<Identity>().is_some();
        let budget = if is_known { &self.layer.budget } else { &self.layer.strangers };
        let mut share = Share { budget: budget.clone(), bytes: 0 };
        if let Err(status) = share.take(answer) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let share = Arc::new(Mutex::new(share));
        let counted = Counted { share: share.clone(), is_stream, prefix: Vec::new(), missing: 0 };
        let request = request.map(|body| Body::new(Request { body, counted }));
        let response = self.inner.call(request);
        Box::pin(async move { Ok(response.await?.map(|body| Body::new(Answer { body, _share: share }))) })
    }
}

/// How far the present message of a request has come.
#[derive(Debug)]
struct Counted {
    share: Arc<Mutex<Share>>,
    is_stream: bool,
    /// What has come of the next message's prefix.
    prefix: Vec<u8>,
    /// Bytes of the present message that have not come.
    missing: u64,
}

impl Counted {
    fn data(&mut self, mut data: Bytes) -> Result<(), Status> {
        let mut share = self.share.lock();
        if !self.is_stream {
            return share.take(data.len() as u64);
        }
        while data.has_remaining() {
            if self.missing > 0 {
                let come = self.missing.min(data.len() as u64);
                data.advance(come as usize);
                self.missing -= come;
                share.take(come)?;
            } else {
                self.prefix.push(data.get_u8());
                let Ok([_, length @ ..]) = <[u8; PREFIX]>::try_from(self.prefix.as_slice()) else { continue };
                self.prefix.clear();
                self.missing = u64::from(u32::from_be_bytes(length));
            }
            if self.missing == 0 {
                share.give_back();
            }
        }
        Ok(())
    }
}

struct Request {
    body: Body,
    counted: Counted,
}

impl http_body::Body for Request {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            let data = data.clone();
            if let Err(status) = self.counted.data(data) {
                return Poll::Ready(Some(Err(status)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer holds its call's share until it was read.
struct Answer {
    body: Body,
    _share: Arc<Mutex<Share>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(budget: &Budget, is_stream: bool) -> Counted {
        let share = Share { budget: budget.clone(), bytes: 0 };
        Counted { share: Arc::new(Mutex::new(share)), is_stream, prefix: Vec::new(), missing: 0 }
    }

    fn message(bytes: usize) -> Vec<u8> {
        [&[0][..], &(bytes as u32).to_be_bytes(), &vec![7; bytes]].concat()
    }

    #[test]
    fn a_stream_holds_what_has_come_of_its_present_message_however_it_is_cut() {
        let budget = Budget::new(100);
        for cut in 1..150 {
            let mut stream = counted(&budget, true);
            for piece in [message(90), message(0), message(100), message(7)].concat().chunks(cut) {
                stream.data(Bytes::copy_from_slice(piece)).unwrap();
            }
            assert_eq!(budget.used.load(Ordering::Acquire), 0);
            let status = stream.data(Bytes::from(message(101))).unwrap_err();
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        }
    }

    #[test]
    fn a_call_holds_its_request_to_its_end_and_all_calls_share_the_budget() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (counted(&budget, false), counted(&budget, false));
        one.data(Bytes::from(message(60))).unwrap();
        assert!(other.data(Bytes::from(message(60))).unwrap_err().message().contains("`--call-memory`"));
        drop(one);
        other.data(Bytes::from(message(60))).unwrap();
        drop(other);
        assert_eq!(budget.used.load(Ordering::Acquire), 0);
    }
}
