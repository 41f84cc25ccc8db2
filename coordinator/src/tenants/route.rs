//! Takes each call to the services of its caller's tenant.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use kiln_proto::scope;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::Tenants;
use crate::auth::{Identity, Role};

/// Goes by the tenant.
#[derive(Debug, Clone)]
pub struct ByTenant {
    tenants: Tenants,
}

impl ByTenant {
    /// To these tenants; the default one's services are what is below.
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

/// The services that are the farm's and no tenant's.
const OF_THE_FARM: [&str; 4] =
    ["/kiln.v1.Workers/", "/kiln.v1.Membership/", "/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

/// Whose services a call is for; empty for the default tenant's.
fn tenant<B>(request: &http::Request<B>) -> String {
    let Some(identity) = request.extensions().get::<Identity>() else { return String::new() };
    if OF_THE_FARM.iter().any(|service| request.uri().path().starts_with(service)) {
        return String::new();
    }
    // A worker moves blobs for the tenant whose lease it has. Where nobody is asked who they are, there are no tenants.
    let is_worker = identity.roles.contains(&Role::Worker) && !identity.is_anonymous();
    let named = request.headers().get(scope::HEADER).filter(|_| is_worker).and_then(|value| value.to_str().ok());
    named.unwrap_or(&identity.tenant).to_owned()
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
        let tenant = tenant(&request);
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
