//! Calls of a coordinator on its own behalf to the one that leads, which may be itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;

use kiln_auth::Identity;
use kiln_peers::myself;
use kiln_proto::v1;
use kiln_proto::v1::deliveries_client::DeliveriesClient;
use kiln_proto::v1::invocations_client::InvocationsClient;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt};

use super::route::BySeat;
use crate::services::Noted;

/// The coordinator that leads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leader(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>);

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leader")
    }
}

/// Actions that it is told of in one call.
const AT_ONCE: usize = 500;

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

    /// Tells it of actions as long as there are any. While none leads, they are lost: no page of an invocation is shown then either.
    pub(crate) async fn note(self, mut noted: mpsc::Receiver<Noted>) {
        let mut batch = Vec::new();
        while noted.recv_many(&mut batch, AT_ONCE).await > 0 {
            let mut by_tenant: BTreeMap<String, Vec<v1::NotedAction>> = BTreeMap::new();
            for (tenant, action) in batch.drain(..) {
                by_tenant.entry(tenant).or_default().push(action);
            }
            for (tenant, actions) in by_tenant {
                let told = InvocationsClient::new(self.of(&tenant)).note(v1::NoteRequest { actions }).await;
                if let Err(status) = told {
                    tracing::debug!(
                        tenant,
                        reason = status.message(),
                        "cannot tell of actions that invocations asked for"
                    );
                }
            }
        }
    }
}

#[tonic::async_trait]
impl kiln_webhooks::Leader for Leader {
    async fn take(&self, push: v1::TakeDeliveryRequest) -> Result<v1::TakeDeliveryResponse, Status> {
        Ok(DeliveriesClient::new(self.of("")).take(push).await?.into_inner())
    }
}
