//! A farm as a client calls it: one connection, or the coordinators of a farm that has several.
//!
//! With several, a call whose coordinator is gone or answers `UNAVAILABLE` is made again at the next one, each at most
//! once. Kiln's calls may be repeated: what they do is named by digests and request ids. A call that streams to the
//! farm is not repeated, because what was sent is gone; whoever made it calls again, and reaches the next coordinator.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::member::{Bare, Live, Member};
use super::pace::{PATIENCE, Paced, too_slow};
use super::several::Several;
use crate::descriptors;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Result<Response<Body>, BoxError>;

/// A connection to a farm, whose every call carries the credentials. Cheap to clone.
#[derive(Clone)]
pub struct Channel(Kind);

#[derive(Clone)]
enum Kind {
    One { url: Arc<str>, bare: Bare },
    Any(Arc<Several>),
    Only { farm: Arc<Several>, member: Arc<Member>, is_paced: bool },
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.url()).finish()
    }
}

impl Channel {
    pub(super) fn one(url: &str, bare: Bare) -> Self {
        Self(Kind::One { url: url.into(), bare })
    }

    pub(super) fn any(farm: Arc<Several>) -> Self {
        Self(Kind::Any(farm))
    }

    /// The address of the coordinator that is called.
    pub fn url(&self) -> String {
        match &self.0 {
            Kind::One { url, .. } => url.to_string(),
            Kind::Any(farm) => farm.current().url.clone(),
            Kind::Only { member, .. } => member.url.clone(),
        }
    }

    /// The farm's coordinators, each alone, in the order in which they should be asked for something: from the one on
    /// that `first` selects, or else from the one on that is used.
    pub fn each(&self, first: Option<usize>) -> Vec<Self> {
        let Kind::Any(farm) = &self.0 else { return vec![self.clone()] };
        let only = |member| Self(Kind::Only { farm: farm.clone(), member, is_paced: false });
        farm.order(first).into_iter().map(only).collect()
    }

    /// The same coordinator, whose calls fail with `DEADLINE_EXCEEDED` when it keeps an answer waiting. Of a farm with one
    /// coordinator it is the same channel: there is nobody else to be asked.
    #[must_use]
    pub fn paced(&self) -> Self {
        match &self.0 {
            Kind::Only { farm, member, .. } => {
                Self(Kind::Only { farm: farm.clone(), member: member.clone(), is_paced: true })
            }
            _ => self.clone(),
        }
    }

    /// Whether it is one of several coordinators, so that there are others to be asked.
    pub fn is_one_of_several(&self) -> bool {
        matches!(self.0, Kind::Only { .. })
    }

    /// Whether both are the same coordinator.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Only { member, .. }, Kind::Only { member: other, .. }) => Arc::ptr_eq(member, other),
            _ => !self.is_one_of_several() && !other.is_one_of_several(),
        }
    }

    /// Has other coordinators asked before this one for a while: its answer was wrong or late.
    pub fn failed(&self) {
        if let Kind::Only { member, .. } = &self.0 {
            member.failed();
        }
    }

    /// This coordinator's answer was as it should be.
    pub fn worked(&self) {
        if let Kind::Only { member, .. } = &self.0 {
            member.worked();
        }
    }

    /// Calls go to the next coordinator from now on.
    pub fn leave(&self) {
        if let Kind::Any(farm) = &self.0 {
            farm.leave(&farm.current());
        }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            Kind::One { bare, .. } => bare.poll_ready(context).map_err(Into::into),
            Kind::Any(_) | Kind::Only { .. } => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match &mut self.0 {
            Kind::One { bare, .. } => {
                let answer = bare.call(request);
                Box::pin(async move { Ok(answer.await?.map(Body::new)) })
            }
            Kind::Any(farm) => {
                let farm = farm.clone();
                match descriptors::streams_requests(request.uri().path()) {
                    true => Box::pin(async move { once(&farm, request).await }),
                    false => Box::pin(async move { at_any(&farm, request).await }),
                }
            }
            Kind::Only { farm, member, is_paced } => {
                let (farm, member, is_paced) = (farm.clone(), member.clone(), *is_paced);
                Box::pin(async move { at(&farm, &member, is_paced, request).await })
            }
        }
    }
}

/// A call at the coordinator that is used.
async fn once(farm: &Arc<Several>, request: Request<Body>) -> Answer {
    let Some((member, live)) = farm.working(&[]).await? else { return Err(gone().into()) };
    let answer = send(&member, &live, request).await;
    if !is_answer(&answer) {
        farm.leave(&member);
    }
    answer
}

/// A call at the coordinator that is used, or else at the next that has an answer.
async fn at_any(farm: &Arc<Several>, request: Request<Body>) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let (mut tried, mut last) = (Vec::new(), None);
    loop {
        let (member, live) = match farm.working(&tried).await {
            Ok(Some(found)) => found,
            Ok(None) => return last.unwrap_or_else(|| Err(gone().into())),
            Err(error) => return last.unwrap_or_else(|| Err(error.into())),
        };
        let again = Request::from_parts(head.clone(), Body::new(Full::<Bytes>::new(body.clone())));
        let answer = send(&member, &live, again).await;
        if is_answer(&answer) {
            return answer;
        }
        farm.leave(&member);
        tracing::debug!(coordinator = %member, method = head.uri.path(), "no answer from a coordinator; asking the next");
        tried.push(member);
        last = Some(answer);
    }
}

/// A call at one coordinator.
async fn at(farm: &Several, member: &Member, is_paced: bool, request: Request<Body>) -> Answer {
    let live = match member.live() {
        Some(live) => live,
        None => member.connect(farm.access()).await?,
    };
    if !is_paced {
        return send(member, &live, request).await;
    }
    let answer = tokio::time::timeout(PATIENCE, send(member, &live, request)).await;
    let answer = answer.unwrap_or_else(|_| Err(too_slow().into()))?;
    Ok(answer.map(|body| Body::new(Paced::new(body))))
}

async fn send(member: &Member, live: &Live, request: Request<Body>) -> Answer {
    let answer = live.channel.clone().oneshot(request).await;
    if answer.is_err() {
        member.lost(live);
    }
    Ok(answer?.map(Body::new))
}

/// Whether a coordinator has answered the call, be it with an error.
fn is_answer(answer: &Answer) -> bool {
    let unavailable = (tonic::Code::Unavailable as i32).to_string();
    answer.as_ref().is_ok_and(|answer| {
        answer.headers().get("grpc-status").is_none_or(|status| status.as_bytes() != unavailable.as_bytes())
    })
}

fn gone() -> tonic::Status {
    tonic::Status::unavailable("no coordinator of the farm is left to be asked")
}
