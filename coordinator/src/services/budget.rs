//! Decorator of all services: limits the total memory that calls in progress use.
//!
//! A client may start many messages without finishing any, or request much without reading it: each call is within its
//! own limits, but their sum is not. Invariant: the data of incomplete messages and of unanswered calls, plus the
//! maximum size of answers that are not read yet, never exceeds the budget. A call that would exceed it is refused with
//! `RESOURCE_EXHAUSTED`.

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

/// Calls with a stream of messages that are each handled before the next is read: only the current message counts.
const STREAMS: [&str; 5] = ["Write", "Link", "RegisterChunkMapping", "Open", "Serve"];
/// Maximum size of an unread answer, by call.
const ANSWERS: [(&str, u64); 4] = [
    ("BatchReadBlobs", MAX_BATCH_BYTES),
    ("GetTree", MAX_BATCH_BYTES),
    ("GetActionResult", CHUNK_BYTES as u64),
    ("Read", CHUNK_BYTES as u64),
];
/// Size of gRPC's prefix of each message: a flag and the length.
const PREFIX: usize = 5;

/// The memory of all calls together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicU64>,
    most: u64,
    /// The source of the limit, for errors.
    limit_source: &'static str,
}

/// Memory for all calls without an identity on a farm that requires one: unauthenticated callers must not block others.
const STRANGERS_BYTES: u64 = 16 << 20;

impl Budget {
    /// A limit in bytes, as set by `--call-memory`.
    pub fn new(most: u64) -> Self {
        Self { used: Arc::default(), most, limit_source: "`--call-memory`" }
    }

    fn take(&self, bytes: u64) -> Result<(), Status> {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(()),
            Err(used) => Err(Status::resource_exhausted(format!(
                "calls in progress use {used} bytes, and {} are {}; try again when some have ended",
                self.most, self.limit_source
            ))),
        }
    }
}

/// One call's part of the budget; released on drop.
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

/// Services with a budget.
#[derive(Debug, Clone)]
pub struct Budgeted<S> {
    inner: S,
    layer: BudgetLayer,
}

impl Budgeted<()> {
    /// Limits services to a budget.
    pub fn layer(budget: Budget) -> BudgetLayer {
        let strangers =
            Budget { most: STRANGERS_BYTES, limit_source: "for calls without an identity", ..Budget::new(0) };
        BudgetLayer { budget, strangers }
    }
}

/// Creates [`Budgeted`] services.
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
        // The gate in front of this layer has authenticated the caller, if required.
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

/// The progress of a request's current message.
#[derive(Debug)]
struct Counted {
    share: Arc<Mutex<Share>>,
    is_stream: bool,
    /// The received part of the next message's prefix.
    prefix: Vec<u8>,
    /// Bytes of the current message that have not arrived yet.
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

/// An answer keeps its call's share until it was read.
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
