//! The endpoint that a forge calls: `POST /webhooks/NAME`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, HttpBody};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use futures::StreamExt;

use super::deliveries::Key;
use super::forge::Event;
use super::{Hooks, Leader, WebhookMetrics, take};
use kiln_auth::peers::{Peer, Share, Shares};
use kiln_proto::v1;
use kiln_proto::v1::take_delivery_response::Taken;
use kiln_state::Current;
use tonic::Code;

/// Maximum bytes of a delivery: GitHub sends none that is larger.
const MAX_BYTES: usize = 25 << 20;
/// Maximum bytes of all deliveries at once.
const MAX_BODIES: usize = 64 << 20;
/// Maximum bytes of deliveries from one address.
const MAX_BODIES_OF_ONE: usize = 32 << 20;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(30);

/// An answer with a message.
struct Answer(StatusCode, String);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

/// How long the coordinator that leads may take, and the pause before it is asked again: forges wait for ten seconds.
const HAND: Duration = Duration::from_secs(9);
const PAUSE: Duration = Duration::from_millis(200);

/// What deliveries need.
#[derive(Debug, Clone)]
struct Receiving {
    hooks: Current<Hooks>,
    leader: Arc<dyn Leader>,
    metrics: Option<WebhookMetrics>,
    /// Bytes of bodies that are being read or handled.
    bodies: Shares,
}

pub(super) fn router(
    hooks: Current<Hooks>,
    leader: Arc<dyn Leader>,
    metrics: Option<WebhookMetrics>,
    is_behind_proxy: bool,
) -> Router {
    let each = if is_behind_proxy { MAX_BODIES } else { MAX_BODIES_OF_ONE };
    let receiving = Receiving { hooks, leader, metrics, bodies: Shares::new(MAX_BODIES, each) };
    Router::new().route("/webhooks/{name}", post(deliver)).with_state(receiving)
}

async fn deliver(
    State(receiving): State<Receiving>,
    Path(name): Path<String>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let share = receiving.bodies.of(peer);
    let answer = receive(&receiving, &name, &headers, body, share).await.unwrap_or_else(|refused| refused);
    if answer.0.is_client_error() || answer.0.is_server_error() {
        tracing::warn!(hook = name, code = answer.0.as_u16(), reason = answer.1, "refused a delivery");
    } else {
        tracing::info!(hook = name, answer = answer.1, "received a delivery");
    }
    if let Some(metrics) = &receiving.metrics {
        metrics.answered(answer.0.as_u16());
    }
    answer
}

/// Reads a body, keeping no more of it than there is room for.
async fn read(body: Body, share: &mut Share) -> Result<Vec<u8>, Answer> {
    let too_large = || Answer(StatusCode::PAYLOAD_TOO_LARGE, format!("a delivery has at most {MAX_BYTES} bytes"));
    if body.size_hint().lower() > MAX_BYTES as u64 {
        return Err(too_large());
    }
    let mut data = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Answer(StatusCode::BAD_REQUEST, format!("the body was cut off: {error}")))?;
        if data.len().saturating_add(piece.len()) > MAX_BYTES {
            return Err(too_large());
        }
        if !share.take(piece.len()) {
            let words = "the deliveries in progress use all the memory available to them; deliver it again later";
            return Err(Answer(StatusCode::SERVICE_UNAVAILABLE, words.to_owned()));
        }
        data.extend_from_slice(&piece);
    }
    Ok(data)
}

async fn receive(
    receiving: &Receiving,
    name: &str,
    headers: &HeaderMap,
    body: Body,
    mut share: Share,
) -> Result<Answer, Answer> {
    // Whoever does not know the secret must not learn which webhooks exist either.
    let unknown = || Answer(StatusCode::UNAUTHORIZED, "no webhook of this name accepts this signature".to_owned());
    let refused = |reason: String| {
        tracing::warn!(hook = name, reason, "cannot authenticate a delivery");
        unknown()
    };
    let hook = receiving.hooks.get().get(name).cloned().ok_or_else(unknown)?;
    let secret = hook.secret().map_err(|reason| {
        tracing::error!(hook = name, reason, "cannot read the secret of a webhook");
        Answer(StatusCode::SERVICE_UNAVAILABLE, "cannot read the webhook's secret".to_owned())
    })?;
    hook.forge.greet(headers, &secret).map_err(refused)?;
    let body = tokio::time::timeout(BODY, read(body, &mut share)).await;
    let body = &body.map_err(|_| Answer(StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned()))??;
    hook.forge.verify(headers, body, &secret, SystemTime::now()).map_err(refused)?;
    let event = hook.forge.read(headers, body).map_err(|reason| Answer(StatusCode::BAD_REQUEST, reason))?;
    let push = match event {
        Event::Push(push) => push,
        Event::Other(words) => return Ok(Answer(StatusCode::OK, words)),
    };
    if !push.addresses.iter().any(|address| hook.builds_repository(address)) {
        let words = format!("`{}` is not among this webhook's `repositories`", push.addresses.join("`, `"));
        return Err(Answer(StatusCode::FORBIDDEN, words));
    }
    if let Err(words) = hook.builds_reference(&push) {
        return Ok(Answer(StatusCode::OK, words));
    }
    let words = format!("commit {} of `{}` will be built", push.commit, push.reference);
    hand(receiving.leader.as_ref(), take::request(name, Key::new(name, body), push))
        .await
        .map(|()| Answer(StatusCode::ACCEPTED, words))
}

/// Hands a push to the coordinator that leads.
async fn hand(leader: &dyn Leader, push: v1::TakeDeliveryRequest) -> Result<(), Answer> {
    let later = |words: &str| Answer(StatusCode::SERVICE_UNAVAILABLE, format!("{words}; deliver it again later"));
    let handing = async {
        loop {
            match leader.take(push.clone()).await {
                Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(PAUSE).await,
                answer => return answer,
            }
        }
    };
    let answer = tokio::time::timeout(HAND, handing).await;
    match answer.map_err(|_| later("no coordinator leads the farm at the moment"))?.map(|answer| answer.taken()) {
        Ok(Taken::New) => Ok(()),
        Ok(Taken::Before) => {
            Err(Answer(StatusCode::CONFLICT, "this delivery was already accepted; each push is built once".to_owned()))
        }
        Ok(Taken::Full) => Err(later("too many pushes are queued")),
        Ok(Taken::Unspecified) => Err(later("the coordinator that leads the farm is of another version")),
        Err(status) => {
            tracing::error!(reason = status.message(), "cannot hand a push to the coordinator that leads the farm");
            Err(Answer(StatusCode::SERVICE_UNAVAILABLE, status.message().to_owned()))
        }
    }
}
