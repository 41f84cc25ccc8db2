//! Routes each call to the services of its caller's tenant.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use kiln_proto::scope;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::Tenants;
use kiln_auth::{Identity, Role};

/// Routes by tenant.
#[derive(Debug, Clone)]
pub struct ByTenant {
    tenants: Tenants,
}

impl ByTenant {
    /// Routes to these tenants; the inner services are the default tenant's.
    pub fn new(tenants: Tenants) -> Self {
        Self { tenants }
    }
}

impl<S> tower::Layer<S> for ByTenant {
    type Service = Routed<S>;

    fn layer(&self, inner: S) -> Routed<S> {
        Routed { tenants: self.tenants.clone(), inner }
    }
}

/// Services of all tenants.
#[derive(Debug, Clone)]
pub struct Routed<S> {
    tenants: Tenants,
    inner: S,
}

/// Services that belong to the farm rather than a tenant.
const OF_THE_FARM: [&str; 4] =
    ["/kiln.v1.Workers/", "/kiln.v1.Membership/", "/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

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
fn admit<B>(request: &mut http::Request<B>, tenants: &Tenants) -> Result<String, Status> {
    let Some(identity) = request.extensions().get::<Identity>() else { return Ok(String::new()) };
    if is_of(request, &OF_THE_FARM) {
        return Ok(String::new());
    }
    if !is_of(request, &OF_LEASES) {
        return Ok(identity.tenant.clone());
    }
    let lease = request.headers().get(scope::LEASE_HEADER).filter(|_| identity.roles.contains(&Role::Worker));
    match lease {
        Some(lease) => {
            let access = tenants.execution().admit(lease.as_bytes(), identity)?;
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

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let tenant = match admit(&mut request, &self.tenants) {
            Ok(tenant) => tenant,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        if tenant.is_empty() {
            return Box::pin(self.inner.call(request));
        }
        let tenants = self.tenants.clone();
        Box::pin(async move {
            match tenants.routes(&tenant).await {
                Ok(mut routes) => routes.call(request).await,
                Err(status) => Ok(Status::into_http(status)),
            }
        })
    }
}
