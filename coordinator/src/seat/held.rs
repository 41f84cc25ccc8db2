//! A term in progress: where it runs, and how calls reach it.
//!
//! Invariant: what a leased term began ends with it, and no answer of it leaves this process after its lease.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use kiln_auth::Guarded;
use kiln_replicas::Lead;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

use super::Term;

/// Where everything runs that belongs to a term: in a runtime of its own, whose tasks end with it, or in that of the process.
#[derive(Debug)]
pub(super) struct Home(Option<Runtime>);

impl Drop for Home {
    fn drop(&mut self) {
        // Ends all that runs there, at its next pause. A runtime must not be waited for in another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Home {
    /// A runtime for one term.
    pub(super) fn own() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("kiln-term").build()?;
        Ok(Self(Some(runtime)))
    }

    /// The runtime of the process.
    pub(super) fn here() -> Self {
        Self(None)
    }

    pub(super) fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }

    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle().spawn(work)
    }
}

/// A term in progress.
#[derive(Debug)]
pub(crate) struct Held {
    pub term: Term,
    lease: Option<(Lead, Handle)>,
}

impl Held {
    /// A term without end.
    pub(super) fn forever(term: Term) -> Self {
        Self { term, lease: None }
    }

    /// A term that runs there for as long as the lease lasts.
    pub(super) fn leased(term: Term, home: &Home, lead: Lead) -> Self {
        Self { term, lease: Some((lead, home.handle())) }
    }

    /// Has a call answered within the term.
    pub(super) async fn answer(
        &self,
        answering: BoxFuture<'static, Result<http::Response<Body>, Infallible>>,
    ) -> Result<http::Response<Body>, Infallible> {
        let Some((lead, handle)) = &self.lease else { return answering.await };
        if lead.is_over() {
            return Ok(over().into_http());
        }
        // Whoever leaves takes the call along.
        let answer = tokio::select! {
            answer = AbortOnDropHandle::new(handle.spawn(answering)) => answer,
            () = lead.over.cancelled() => return Ok(over().into_http()),
        };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Err(error) if error.is_panic() => {
                return Ok(Status::internal("the coordinator failed to answer; see its log").into_http());
            }
            Err(_) => return Ok(over().into_http()),
        };
        let end = Box::pin(Ends { lead: lead.clone(), over: Box::pin(lead.over.clone().cancelled_owned()) });
        Ok(answer.map(|body| Body::new(Guarded::new(body, end))))
    }
}

/// Completes when the lease is over: also in a process that was stopped, before the timer that would have told it has run.
struct Ends {
    lead: Lead,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Future for Ends {
    type Output = Status;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Status> {
        if self.over.as_mut().poll(context).is_ready() || self.lead.is_over() {
            return Poll::Ready(over());
        }
        Poll::Pending
    }
}

fn over() -> Status {
    Status::unavailable("this coordinator leads the farm no more; another does, or will within seconds: try again")
}
