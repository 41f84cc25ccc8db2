//! A streaming call that ends when its caller is revoked, or when the credentials expire or are withdrawn.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::watch;
use tonic::Status;
use tonic::codegen::{Body, http};

use super::Identity;
use super::authenticator::{Known, revoked_status};

/// Completes with the reason to end a call.
pub type End = Pin<Box<dyn Future<Output = Status> + Send>>;

/// Completes when the caller may no longer call: the credentials expired, or were revoked or withdrawn.
pub fn end(identity: Identity, mut known: watch::Receiver<Arc<Known>>) -> End {
    Box::pin(async move {
        let expired = expired(identity.expires);
        let revoked = async {
            // If the files are no longer watched, there are no further revocations.
            let is_out = |known: &Arc<Known>| {
                known.revoked.has(&identity) || identity.token.as_ref().is_some_and(|hash| !known.tokens.has_hash(hash))
            };
            if known.wait_for(is_out).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = revoked => revoked_status(&identity),
            () = expired => Status::unauthenticated(format!("the certificate or token of `{}` has expired; call again with a new one", identity.name)),
        }
    })
}

async fn expired(at: Option<SystemTime>) {
    match at {
        None => std::future::pending().await,
        Some(at) => tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
    }
}

/// A response that ends early for a reason of its own, such as that its caller loses access.
pub struct Guarded<B> {
    inner: B,
    end: Option<End>,
}

impl<B> std::fmt::Debug for Guarded<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("ended", &self.end.is_none()).finish_non_exhaustive()
    }
}

impl<B> Guarded<B> {
    /// Ends the response with the status of `end`, unless it is over before.
    pub fn new(inner: B, end: End) -> Self {
        Self { inner, end: Some(end) }
    }
}

impl<B> Body for Guarded<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let Some(end) = self.end.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(status) = end.as_mut().poll(context) {
            self.end = None;
            let mut trailers = http::HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| http_body::Frame::trailers(trailers))));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
