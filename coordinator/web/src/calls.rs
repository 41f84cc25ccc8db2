//! The farm's services, called in this process as a visitor: through the same gate, with the same checks, as over the network.

use std::convert::Infallible;
use std::fmt;
use std::task::{Context, Poll};

use kiln_auth::{Authenticated, Caller};
use kiln_proto::bytestream::byte_stream_client::ByteStreamClient;
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use kiln_proto::v1::artifacts_client::ArtifactsClient;
use kiln_proto::v1::builds_client::BuildsClient;
use kiln_proto::v1::cache_client::CacheClient;
use kiln_proto::v1::farm_client::FarmClient;
use kiln_proto::v1::invocations_client::InvocationsClient;
use tonic::body::Body;
use tonic::codegen::http;
use tower::Service;
use tower::util::BoxCloneSyncService;

use crate::access::Visitor;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// The farm's services, behind their gate. Cheap to clone.
#[derive(Clone)]
pub struct Calls(BoxCloneSyncService<Request, Response, Infallible>);

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Calls {
    /// Calls these services. They must authenticate and authorise their callers themselves.
    pub fn new<S>(services: S) -> Self
    where
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(services))
    }

    /// Calls as this visitor.
    pub(crate) fn of(&self, visitor: &Visitor) -> Client {
        let identity = Authenticated(visitor.identity.clone());
        Client { services: self.clone(), identity, caller: visitor.caller.clone() }
    }
}

/// The services as one visitor may call them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    services: Calls,
    identity: Authenticated,
    caller: Caller,
}

impl Service<Request> for Client {
    type Response = Response;
    type Error = Infallible;
    type Future = <BoxCloneSyncService<Request, Response, Infallible> as Service<Request>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        request.extensions_mut().insert(self.identity.clone());
        request.extensions_mut().insert(self.caller.clone());
        self.services.0.call(request)
    }
}

impl Client {
    pub(crate) fn bytes(&self) -> ByteStreamClient<Self> {
        ByteStreamClient::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn results(&self) -> ActionCacheClient<Self> {
        ActionCacheClient::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn artifacts(&self) -> ArtifactsClient<Self> {
        ArtifactsClient::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn cache(&self) -> CacheClient<Self> {
        CacheClient::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn farm(&self) -> FarmClient<Self> {
        FarmClient::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn invocations(&self) -> InvocationsClient<Self> {
        InvocationsClient::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn builds(&self) -> BuildsClient<Self> {
        BuildsClient::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}
