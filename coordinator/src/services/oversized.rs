//! Decorator: refuses oversized batches as REAPI specifies, rather than as gRPC does.
//!
//! gRPC refuses such a message before the service sees it, with `OUT_OF_RANGE` and a limit that was never advertised.
//! The batch calls themselves never return that status.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::MAX_BATCH_BYTES;

/// Calls whose batches are bounded by `max_batch_total_size_bytes`.
const BATCHES: [&str; 2] = ["BatchUpdateBlobs", "BatchReadBlobs"];

/// A service with batch calls, whose refusals of oversized messages are translated to REAPI's.
#[derive(Debug, Clone)]
pub struct Oversized<S>(pub S);

impl<S: NamedService> NamedService for Oversized<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Oversized<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = request.uri().path().rsplit('/').next().unwrap_or_default();
        let is_batch = BATCHES.contains(&call);
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let refused =
                Status::from_header_map(answer.headers()).is_some_and(|status| status.code() == Code::OutOfRange);
            if !(is_batch && refused) {
                return Ok(answer);
            }
            let text = format!(
                "a batch is larger than any message; `max_batch_total_size_bytes` is {MAX_BATCH_BYTES}: split it, or use \
                 `ByteStream`"
            );
            Ok(Status::invalid_argument(text).into_http())
        })
    }
}
