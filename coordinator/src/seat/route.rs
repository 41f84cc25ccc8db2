//! Takes each call to whoever answers it: the services of its caller's tenant, or those of the farm.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use http_body_util::{BodyExt, Full, Limited};
use kiln_auth::relay::{HEADER, verified};
use kiln_auth::{Identity, Role};
use kiln_execution::Elsewhere;
use kiln_peers::{Relay, status};
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::scope;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};

use super::{Held, Seat, Seats, Term};
use crate::tenants::AllStores;

type Answer = Result<http::Response<Body>, Infallible>;

/// Routes by the coordinator's seat and the caller's tenant.
#[derive(Debug, Clone)]
pub(crate) struct BySeat {
    seats: Seats,
    common: Common,
}

impl BySeat {
    /// Routes so; the inner services are those of any server, whatever it serves.
    pub(crate) fn new(seats: Seats, common: Common) -> Self {
        Self { seats, common }
    }
}

impl<S> tower::Layer<S> for BySeat {
    type Service = Routed<S>;

    fn layer(&self, inner: S) -> Routed<S> {
        Routed { seats: self.seats.clone(), common: self.common.clone(), inner }
    }
}

/// Services of all tenants.
#[derive(Debug, Clone)]
pub(crate) struct Routed<S> {
    seats: Seats,
    common: Common,
    inner: S,
}

/// Services of any server, and the one in which each coordinator speaks for itself.
const OF_SERVERS: [&str; 3] =
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/kiln.v1.Coordinators/"];

/// Services that every coordinator of a farm has.
const OF_EVERYBODY: [&str; 4] = [
    "/build.bazel.remote.execution.v2.Capabilities/",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/",
    "/build.bazel.remote.execution.v2.ActionCache/",
    "/google.bytestream.ByteStream/",
];

/// Calls of these that read blobs, with one small message.
const READS: [&str; 3] = [
    "/google.bytestream.ByteStream/Read",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/SplitBlob",
];
/// Maximum size of their messages.
const MAX_READ_BYTES: usize = MAX_MESSAGE_BYTES;

/// Services that belong to the farm rather than a tenant.
const OF_THE_FARM: [&str; 3] = ["/kiln.v1.Workers/", "/kiln.v1.Membership/", "/kiln.v1.Deliveries/"];

/// Services that workers call for a lease.
const OF_LEASES: [&str; 7] = [
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/",
    "/google.bytestream.ByteStream/",
    "/kiln.v1.CacheMounts/",
    "/kiln.v1.Calls/",
    "/kiln.v1.Possession/",
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
        None => own_tenant(request),
    }
}

/// The caller's own tenant, for a call without a lease; empty for the default tenant.
fn own_tenant<B>(request: &http::Request<B>) -> Result<String, Status> {
    let Some(identity) = request.extensions().get::<Identity>() else { return Ok(String::new()) };
    if is_of(request, &OF_LEASES) && identity.roles.iter().all(|role| *role == Role::Worker) {
        return Err(Status::permission_denied(format!(
            "worker `{}` presented no lease; a worker reads and writes blobs only for a lease that it holds",
            identity.name
        )));
    }
    Ok(identity.tenant.clone())
}

/// Answers a call from what a coordinator has while it leads.
async fn lead(held: Arc<Held>, mut request: http::Request<Body>) -> Answer {
    let term = &held.term;
    if is_of(&request, &OF_THE_FARM) {
        return term.farm.clone().call(request).await;
    }
    let stack = match admit(&mut request, term) {
        Ok(tenant) => term.tenants.of(&tenant).await,
        Err(status) => Err(status),
    };
    match stack {
        Ok(stack) => stack.routes.clone().call(request).await,
        Err(status) => Ok(status.into_http()),
    }
}

/// Whether only the coordinator that leads can answer a call, or say that another one may.
fn is_for_the_leader<B>(request: &http::Request<B>) -> bool {
    has_lease(request) || !is_of(request, &OF_EVERYBODY)
}

/// Whether another coordinator passed a call on. That is done once: two that take each other for the leader would send it to and fro.
fn is_passed_on<B>(request: &http::Request<B>) -> bool {
    request.headers().contains_key(HEADER)
}

/// Answers a call from what a coordinator has in any case, or passes it on to the one that leads.
async fn follow(relay: Relay, common: Common, request: http::Request<Body>) -> Answer {
    // Small requests whose answer another coordinator may have although this one lacks it.
    let is_read = is_of(&request, &READS);
    if is_for_the_leader(&request) {
        return if is_read && has_lease(&request) {
            read_for_lease(relay, common, request).await
        } else {
            relay.pass(request).await
        };
    }
    if !is_read {
        return common.answer(request).await;
    }
    let Some((own, theirs)) = twice(request).await else { return Ok(too_large().into_http()) };
    let answer = common.answer(own).await?;
    if is_absent(&answer) { relay.pass(theirs).await } else { Ok(answer) }
}

/// Answers a worker's read here once the coordinator that granted its lease has answered one: that one knows whether it lasts.
async fn read_for_lease(relay: Relay, common: Common, request: http::Request<Body>) -> Answer {
    let lease = request.headers().get(scope::LEASE_HEADER).map(|lease| lease.as_bytes().to_vec()).unwrap_or_default();
    let identity = request.extensions().get::<Identity>().cloned().unwrap_or_else(Identity::anonymous);
    let (access, lasts) = match common.elsewhere.admit(&lease, &identity) {
        Ok(admitted) => admitted,
        Err(status) => return Ok(status.into_http()),
    };
    if !lasts {
        let answer = relay.pass(request).await?;
        if is_of_the_lease(&answer) {
            common.elsewhere.lasts(&access);
        }
        return Ok(answer);
    }
    let opened = match common.stores.of(access.tenant()).await {
        Ok(opened) => opened,
        Err(status) => return Ok(status.into_http()),
    };
    common.elsewhere.reads_from(access.tenant(), &opened.stores);
    let Some((mut own, theirs)) = twice(request).await else { return Ok(too_large().into_http()) };
    own.extensions_mut().insert(access);
    let answer = opened.routes.clone().call(own).await?;
    if is_absent(&answer) { relay.pass(theirs).await } else { Ok(answer) }
}

fn has_lease<B>(request: &http::Request<B>) -> bool {
    request.headers().contains_key(scope::LEASE_HEADER)
}

fn is_absent(answer: &http::Response<Body>) -> bool {
    status(answer) == Some(Code::NotFound)
}

/// Whether an answer shows that the lease lasts: others may have been given before anybody looked at it.
fn is_of_the_lease(answer: &http::Response<Body>) -> bool {
    answer.status() == http::StatusCode::OK && matches!(status(answer), None | Some(Code::Ok | Code::NotFound))
}

fn too_large() -> Status {
    Status::resource_exhausted(format!("a request of more than {MAX_READ_BYTES} bytes; ask for fewer blobs at once"))
}

/// A call of one small message, twice; none if it is not small.
async fn twice(request: http::Request<Body>) -> Option<(http::Request<Body>, http::Request<Body>)> {
    let (parts, body) = request.into_parts();
    let bytes = Limited::new(body, MAX_READ_BYTES).collect().await.ok()?.to_bytes();
    let with_body = |parts| http::Request::from_parts(parts, Body::new(Full::new(bytes.clone())));
    Some((with_body(parts.clone()), with_body(parts)))
}

/// What a coordinator has whether it leads or not, as far as calls are answered from it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub stores: AllStores,
    pub elsewhere: Elsewhere,
}

impl Common {
    async fn answer(&self, request: http::Request<Body>) -> Answer {
        let opened = match own_tenant(&request) {
            Ok(tenant) => self.stores.of(&tenant).await,
            Err(status) => Err(status),
        };
        match opened {
            Ok(opened) => opened.routes.clone().call(request).await,
            Err(status) => Ok(status.into_http()),
        }
    }
}

impl<S> Service<http::Request<Body>> for Routed<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // Uses the service that is ready, and leaves its clone for the next call.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let (seats, common) = (self.seats.clone(), self.common.clone());
        Box::pin(async move {
            let request = match verified(request).await {
                Ok(request) => request,
                Err(refused) => return Ok(refused.into_http()),
            };
            if is_of(&request, &OF_SERVERS) {
                return inner.call(request).await;
            }
            let (for_the_leader, passed_on) = (is_for_the_leader(&request), is_passed_on(&request));
            let seat = if for_the_leader { seats.settled(passed_on).await } else { seats.now() };
            match seat {
                Seat::Leads(held) => held.answer(lead(held.clone(), request).boxed()).await,
                Seat::Follows(relay) if !passed_on => follow(relay, common, request).boxed().await,
                _ if for_the_leader => Ok(seats.vacant().into_http()),
                _ => common.answer(request).boxed().await,
            }
        })
    }
}
