//! The gate in front of all services: finds out who calls, whether they may, and whether both sides are near enough in age.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use kiln_proto::protocol;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::open_call::{self, Guarded};
use super::{Authenticator, Identity, Needs, needs};

/// The gate.
#[derive(Debug, Clone)]
pub struct Gate {
    authenticator: Authenticator,
}

impl Gate {
    /// A gate that asks this authenticator.
    pub fn new(authenticator: Authenticator) -> Self {
        Self { authenticator }
    }
}

impl<S> tower::Layer<S> for Gate {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { authenticator: self.authenticator.clone(), inner }
    }
}

/// Services behind the gate.
#[derive(Debug, Clone)]
pub struct Guard<S> {
    authenticator: Authenticator,
    inner: S,
}

type Answer = Result<http::Response<Body>, Infallible>;

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let spoken = request.headers().get(protocol::HEADER);
        if let Some(Err(error)) = spoken.map(|spoken| protocol::check(spoken.as_bytes())) {
            let status = Status::failed_precondition(error.to_string());
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        if !self.authenticator.asks() {
            request.extensions_mut().insert(Identity::anonymous());
            return Box::pin(self.inner.call(request));
        }
        // The one that was ready is used, and its copy stays for the next call.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let authenticator = self.authenticator.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let identity = match admit(&authenticator, &parts).await {
                Ok(identity) => identity,
                Err(status) => return Ok(status.into_http()),
            };
            let Some(identity) = identity else { return inner.call(http::Request::from_parts(parts, body)).await };
            let mut end = open_call::end(identity.clone(), authenticator.known());
            parts.extensions.insert(identity);
            let request = http::Request::from_parts(parts, body);
            let answer = tokio::select! {
                answer = inner.call(request) => answer?,
                status = &mut end => return Ok(status.into_http()),
            };
            Ok(answer.map(|body| Body::new(Guarded::new(body, end))))
        })
    }
}

/// Who calls, where that matters.
async fn admit(authenticator: &Authenticator, call: &http::request::Parts) -> Result<Option<Identity>, Status> {
    let path = call.uri.path();
    let Some(needs) = needs(path) else {
        return Err(Status::unimplemented(format!("`{path}` is no call of this farm")));
    };
    if needs == Needs::Nothing {
        return Ok(None);
    }
    let identity = authenticator.identify(call).await?;
    match needs {
        Needs::AnyOf(roles) if !identity.has_any(roles) => {
            let wanted: Vec<String> = roles.iter().map(|role| format!("`{role}`")).collect();
            tracing::warn!(name = identity.name, tenant = identity.tenant, path, "refused a call");
            Err(Status::permission_denied(format!(
                "`{}` may not do this: it needs the role {}",
                identity.name,
                wanted.join(" or ")
            )))
        }
        _ => Ok(Some(identity)),
    }
}
