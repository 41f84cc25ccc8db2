//! The request of a relayed call, where that is one message: it must be the one that the seal is for.

use http_body_util::{BodyExt, Full, Limited};
use kiln_proto::channel::MAX_REQUEST_BYTES;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

/// Length of a digest, in bytes.
pub(super) const BYTES: usize = SHA256_OUTPUT_LEN;

/// The digest that a request must have, as an extension of its call.
#[derive(Debug, Clone)]
pub(crate) struct Message(pub(crate) [u8; BYTES]);

pub(super) fn digest(request: &[u8]) -> [u8; BYTES] {
    let mut digest = [0; BYTES];
    digest.copy_from_slice(ring::digest::digest(&SHA256, request).as_ref());
    digest
}

/// A call with its request, of which a service sees nothing before all of it has been compared with the seal.
///
/// # Errors
/// `UNAUTHENTICATED` if it is another request.
pub async fn verified(mut call: http::Request<Body>) -> Result<http::Request<Body>, Status> {
    let Some(Message(expected)) = call.extensions_mut().remove() else { return Ok(call) };
    let (parts, body) = call.into_parts();
    let refused =
        || Status::unauthenticated("this call was passed on with another request than the one that was sealed");
    let request = Limited::new(body, MAX_REQUEST_BYTES)
        .collect()
        .await
        .map_err(|error| error.downcast::<Status>().map_or_else(|_| refused(), |status| *status))?;
    let request = request.to_bytes();
    if digest(&request) != expected {
        tracing::warn!(path = parts.uri.path(), "refused a call that was changed on its way from another coordinator");
        return Err(refused());
    }
    Ok(http::Request::from_parts(parts, Body::new(Full::new(request))))
}
