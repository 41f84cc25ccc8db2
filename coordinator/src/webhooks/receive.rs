//! What a forge calls: `POST /webhooks/NAME`.

use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::Webhooks;
use super::config::Hook;
use super::forge::{Event, Push};
use super::journal::{Job, Key, Taken};

/// Bytes of a delivery: GitHub sends none that is larger.
const MAX_BYTES: usize = 25 << 20;

/// An answer in words.
struct Answer(StatusCode, String);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

pub(super) fn router(webhooks: Webhooks) -> Router {
    Router::new().route("/webhooks/{name}", post(deliver)).layer(DefaultBodyLimit::max(MAX_BYTES)).with_state(webhooks)
}

async fn deliver(
    State(webhooks): State<Webhooks>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let answer = receive(&webhooks, &name, &headers, &body).await.unwrap_or_else(|refused| refused);
    if answer.0.is_client_error() || answer.0.is_server_error() {
        tracing::warn!(hook = name, code = answer.0.as_u16(), reason = answer.1, "a delivery was refused");
    } else {
        tracing::info!(hook = name, answer = answer.1, "a delivery came");
    }
    if let Some(metrics) = &webhooks.shared.farm.metrics {
        metrics.answered(answer.0.as_u16());
    }
    answer
}

async fn receive(webhooks: &Webhooks, name: &str, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Answer> {
    // Who does not know the secret is not told either which webhooks there are.
    let unknown = || Answer(StatusCode::UNAUTHORIZED, "no webhook of this name takes this signature".to_owned());
    let hook = webhooks.shared.hooks.get(name).ok_or_else(unknown)?;
    let secret = hook.secret().map_err(|reason| {
        tracing::error!(hook = name, reason, "the secret of a webhook cannot be read");
        Answer(StatusCode::SERVICE_UNAVAILABLE, "the webhook's secret cannot be read".to_owned())
    })?;
    hook.forge.verify(headers, body, &secret, SystemTime::now()).map_err(|reason| {
        tracing::warn!(hook = name, reason, "a delivery is not by the forge");
        unknown()
    })?;
    let event = hook.forge.read(headers, body).map_err(|reason| Answer(StatusCode::BAD_REQUEST, reason))?;
    let push = match event {
        Event::Push(push) => push,
        Event::Other(words) => return Ok(Answer(StatusCode::OK, words)),
    };
    let Some(repository) = push.addresses.iter().find(|address| hook.builds_repository(address)).cloned() else {
        let words = format!("`{}` is none of this webhook's `repositories`", push.addresses.join("`, `"));
        return Err(Answer(StatusCode::FORBIDDEN, words));
    };
    if let Err(words) = hook.builds_reference(&push) {
        return Ok(Answer(StatusCode::OK, words));
    }
    accept(webhooks, hook, Key::new(name, body), push, repository).await
}

async fn accept(webhooks: &Webhooks, hook: &Hook, key: Key, push: Push, repository: String) -> Result<Answer, Answer> {
    let words = format!("commit {} of `{}` will be built", push.commit, push.reference);
    let job = Job { hook: hook.name().to_owned(), push, repository };
    match webhooks.shared.journal.take(key, job.clone()).await {
        Ok(Taken::New) => {
            webhooks.begin(key, job);
            Ok(Answer(StatusCode::ACCEPTED, words))
        }
        Ok(Taken::Before) => {
            Err(Answer(StatusCode::CONFLICT, "this delivery was taken before; what it pushed is built once".to_owned()))
        }
        Ok(Taken::Full) => Err(Answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "as many pushes wait to be built as there is room for; deliver it again later".to_owned(),
        )),
        Err(error) => {
            tracing::error!(%error, "a push cannot be written down");
            Err(Answer(StatusCode::INTERNAL_SERVER_ERROR, "the push cannot be written down".to_owned()))
        }
    }
}
