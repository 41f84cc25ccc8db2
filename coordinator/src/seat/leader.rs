//! Calls of a coordinator on its own behalf to the one that leads, which may be itself.

use std::convert::Infallible;
use std::fmt;

use kiln_auth::Identity;
use kiln_peers::myself;
use kiln_proto::v1;
use kiln_proto::v1::deliveries_client::DeliveriesClient;
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt};

use super::route::BySeat;

/// The coordinator that leads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leader(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>);

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leader")
    }
}

impl Leader {
    /// The one that calls are taken to by this.
    pub(crate) fn by(seats: &BySeat) -> Self {
        Self(BoxCloneSyncService::new(seats.layer(Routes::default())))
    }

    /// The same, called in the name of this coordinator for a tenant; empty for the default tenant.
    fn of(
        &self,
        tenant: &str,
    ) -> impl GrpcService<Body, ResponseBody = Body, Error = Infallible, Future: Send> + Clone + use<> {
        let identity = Identity { tenant: tenant.to_owned(), ..myself() };
        self.0.clone().map_request(move |mut call: http::Request<Body>| {
            call.extensions_mut().insert(identity.clone());
            call
        })
    }
}

#[tonic::async_trait]
impl kiln_webhooks::Leader for Leader {
    async fn take(&self, push: v1::TakeDeliveryRequest) -> Result<v1::TakeDeliveryResponse, Status> {
        Ok(DeliveriesClient::new(self.of("")).take(push).await?.into_inner())
    }
}
