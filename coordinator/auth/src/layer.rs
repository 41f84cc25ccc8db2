//! The gate in front of all services: authenticates callers, checks their permissions and compares protocol versions.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use kiln_proto::protocol;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};

use super::audit::{Audit, Call, Subject};
use super::open_call::{self, Guarded};
use super::relay::{Answered, Relayed};
use super::{Authenticator, Identity, Needs, needs};
use crate::accepted::Caller;

/// Wraps services in the gate.
#[derive(Debug, Clone)]
pub struct Gate {
    authenticator: Authenticator,
    audit: Option<Audit>,
}

impl Gate {
    /// A gate with this authenticator and an optional audit log.
    pub fn new(authenticator: Authenticator, audit: Option<Audit>) -> Self {
        Self { authenticator, audit }
    }
}

impl<S> tower::Layer<S> for Gate {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { authenticator: self.authenticator.clone(), audit: self.audit.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Guard<S> {
    authenticator: Authenticator,
    audit: Option<Audit>,
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
        let mut noted = self.audit.clone().map(|audit| Noted::of(audit, &mut request));
        if !self.authenticator.asks() {
            let identity = Identity::anonymous();
            request.extensions_mut().insert(identity.clone());
            noted.iter_mut().for_each(|noted| noted.identity = Some(identity.clone()));
            let answer = self.inner.call(request);
            return Box::pin(async move {
                let answer = answer.await?;
                if let Some(noted) = noted {
                    noted.write(&answer);
                }
                Ok(answer)
            });
        }
        // Uses the service that is ready, and leaves its clone for the next call.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let authenticator = self.authenticator.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let admitted = match authenticator.relayed(&parts) {
                Ok(None) => admit(&authenticator, &parts, None).await,
                Ok(Some((relayed, message))) => {
                    noted.iter_mut().for_each(|noted| noted.address = relayed.address);
                    if let Some(message) = message {
                        parts.extensions.insert(message);
                    }
                    admit(&authenticator, &parts, Some(&relayed)).await
                }
                Err(refused) => Err((None, refused)),
            };
            let (identity, refused) = match admitted {
                Ok(identity) => (identity, None),
                Err((identity, status)) => (identity, Some(status)),
            };
            noted.iter_mut().for_each(|noted| noted.identity.clone_from(&identity));
            if let Some(status) = refused {
                let answer = status.into_http();
                if let Some(noted) = noted {
                    noted.write(&answer);
                }
                return Ok(answer);
            }
            let Some(identity) = identity else {
                let answer = inner.call(http::Request::from_parts(parts, body)).await?;
                if let Some(noted) = noted {
                    noted.write(&answer);
                }
                return Ok(answer);
            };
            let mut end = open_call::end(identity.clone(), authenticator.known());
            parts.extensions.insert(identity);
            let request = http::Request::from_parts(parts, body);
            let answer = tokio::select! {
                answer = inner.call(request) => answer?,
                status = &mut end => status.into_http(),
            };
            if let Some(noted) = noted {
                noted.write(&answer);
            }
            Ok(answer.map(|body| Body::new(Guarded::new(body, end))))
        })
    }
}

/// The call that stores a result which the caller vouches for.
const RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";

/// A call that may have to be logged. If it is dropped without an answer, its caller has left, but it may have changed
/// something.
struct Noted {
    audit: Audit,
    path: String,
    address: Option<SocketAddr>,
    subject: Subject,
    identity: Option<Identity>,
    answered: bool,
}

impl Noted {
    fn of<B>(audit: Audit, request: &mut http::Request<B>) -> Self {
        let extensions = request.extensions_mut();
        let address = extensions.get::<Caller>().and_then(|caller| caller.address);
        let subject = Subject::default();
        extensions.insert(subject.clone());
        let path = request.uri().path().to_owned();
        Self { audit, path, address, subject, identity: None, answered: false }
    }

    fn write(mut self, answer: &http::Response<Body>) {
        if answer.extensions().get::<Answered>().is_some() {
            self.answered = true;
            return;
        }
        // A call that failed immediately has its status in the headers; for a stream, the status at its start is
        // logged.
        let status = Status::from_header_map(answer.headers());
        let (code, message) = status.as_ref().map_or((Code::Ok, ""), |status| (status.code(), status.message()));
        self.end(code, message);
    }

    fn end(&mut self, code: Code, message: &str) {
        self.answered = true;
        if Audit::wants(&self.path, code) {
            self.audit.write(&Call {
                path: &self.path,
                identity: self.identity.as_ref(),
                address: self.address.map(|address| address.to_string()),
                code,
                message,
                subject: self.subject.get().as_deref(),
            });
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if !self.answered && Audit::changes(&self.path) {
            self.end(Code::Cancelled, "the caller left before the answer");
        }
    }
}

/// Authenticates and authorises a caller, whom another coordinator may have authenticated. A refusal names the caller if it is known.
async fn admit(
    authenticator: &Authenticator,
    call: &http::request::Parts,
    relayed: Option<&Relayed>,
) -> Result<Option<Identity>, (Option<Identity>, Status)> {
    let path = call.uri.path();
    let Some(needs) = needs(path) else {
        return Err((None, Status::unimplemented(format!("unknown call `{path}`"))));
    };
    if needs == Needs::Nothing {
        return Ok(None);
    }
    let identified = match relayed {
        Some(relayed) => authenticator.admit(relayed).await,
        None => authenticator.identify(call).await,
    };
    let identity = identified.map_err(|status| (None, status))?;
    match needs {
        _ if path == RESULT && identity.scope.is_some() => {
            let words = "is confined to a scope, and a result is seen by everyone; execute the action instead";
            let refused = Status::permission_denied(format!("`{}` {words}", identity.name));
            Err((Some(identity), refused))
        }
        Needs::AnyOf(roles) if !identity.has_any(roles) => {
            let wanted: Vec<String> = roles.iter().map(|role| format!("`{role}`")).collect();
            tracing::warn!(name = identity.name, tenant = identity.tenant, path, "refused a call");
            let refused = Status::permission_denied(format!(
                "`{}` has no permission: this requires the role {}",
                identity.name,
                wanted.join(" or ")
            ));
            Err((Some(identity), refused))
        }
        _ => Ok(Some(identity)),
    }
}

#[cfg(test)]
mod tests {
    use tower::Layer;

    use super::*;

    #[tokio::test]
    async fn a_call_whose_caller_leaves_before_the_answer_is_written_down() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("audit.jsonl");
        let config = crate::Config { insecure: true, ..Default::default() };
        let authenticator = Authenticator::open(&config, directory.path(), None, None, None).await.unwrap();
        let gate = Gate::new(authenticator, Some(Audit::open(&log).unwrap()));
        let mut guard = gate.layer(tower::service_fn(|request: http::Request<Body>| async move {
            let request = tonic::Request::from_parts(Default::default(), request.into_parts().0.extensions, ());
            Subject::of(&request).is("layers of everything".to_owned());
            std::future::pending::<Answer>().await
        }));
        for path in ["/kiln.v1.Cache/Prune", "/kiln.v1.Cache/List"] {
            let mut call = guard.call(http::Request::builder().uri(path).body(Body::empty()).unwrap());
            assert!(call.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        }
        let text = std::fs::read_to_string(&log).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim()).expect("expected one line for what changes");
        assert_eq!((&line["call"], &line["outcome"]), (&"/kiln.v1.Cache/Prune".into(), &"Cancelled".into()));
        assert_eq!(line["subject"], "layers of everything");
    }
}
