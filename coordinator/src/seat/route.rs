//! Takes each call to whoever answers it: the services of its caller's tenant, or those of the farm.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use kiln_auth::{Identity, Role};
use kiln_proto::scope;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::{Seats, Term};

/// Routes by the coordinator's seat and the caller's tenant.
#[derive(Debug, Clone)]
pub(crate) struct BySeat {
    seats: Seats,
}

impl BySeat {
    /// Routes so; the inner services are those of any server, whatever it serves.
    pub(crate) fn new(seats: Seats) -> Self {
        Self { seats }
    }
}

impl<S> tower::Layer<S> for BySeat {
    type Service = Routed<S>;

    fn layer(&self, inner: S) -> Routed<S> {
        Routed { seats: self.seats.clone(), inner }
    }
}

/// Services of all tenants.
#[derive(Debug, Clone)]
pub(crate) struct Routed<S> {
    seats: Seats,
    inner: S,
}

/// Services of any server.
const OF_SERVERS: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

/// Services that belong to the farm rather than a tenant.
const OF_THE_FARM: [&str; 2] = ["/kiln.v1.Workers/", "/kiln.v1.Membership/"];

/// Services that workers call for a lease.
const OF_LEASES: [&str; 6] = [
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/",
    "/google.bytestream.ByteStream/",
    "/kiln.v1.CacheMounts/",
    "/kiln.v1.Calls/",
    "/kiln.v1.Shells/Serve",
    "/kiln.v1.SshAgents/Ask",
];

/// Whether a call is for one of these services.
fn is_of<B>(request: &http::Request<B>, services: &[&str]) -> bool {
    services.iter().any(|service| request.uri().path().starts_with(service))
}

/// The tenant whose services a call is for; empty for the default tenant. A call with a lease is for that lease's
/// tenant, and may access what the lease needs.
fn admit<B>(request: &mut http::Request<B>, term: &Term) -> Result<String, Status> {
    let Some(identity) = request.extensions().get::<Identity>() else { return Ok(String::new()) };
    if !is_of(request, &OF_LEASES) {
        return Ok(identity.tenant.clone());
    }
    let lease = request.headers().get(scope::LEASE_HEADER).filter(|_| identity.roles.contains(&Role::Worker));
    match lease {
        Some(lease) => {
            let access = term.execution().admit(lease.as_bytes(), identity)?;
            let tenant = access.tenant().to_owned();
            request.extensions_mut().insert(access);
            Ok(tenant)
        }
        None if identity.roles.iter().all(|role| *role == Role::Worker) => Err(Status::permission_denied(format!(
            "worker `{}` presented no lease; a worker reads and writes blobs only for a lease that it holds",
            identity.name
        ))),
        None => Ok(identity.tenant.clone()),
    }
}

/// Answers a call from what a coordinator has while it leads.
async fn lead(term: Arc<Term>, mut request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
    if is_of(&request, &OF_THE_FARM) {
        return term.farm.clone().call(request).await;
    }
    let stack = match admit(&mut request, &term) {
        Ok(tenant) => term.tenants.of(&tenant).await,
        Err(status) => Err(status),
    };
    match stack {
        Ok(stack) => stack.routes.clone().call(request).await,
        Err(status) => Ok(status.into_http()),
    }
}

impl<S> Service<http::Request<Body>> for Routed<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if is_of(&request, &OF_SERVERS) {
            return Box::pin(self.inner.call(request));
        }
        match self.seats.term() {
            Ok(term) => Box::pin(lead(term, request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}
