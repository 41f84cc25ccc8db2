//! Gitea and Forgejo: `X-Gitea-Signature`, pushes in GitHub's format, commit statuses.

use axum::http::HeaderMap;
use url::Url;

use super::{Call, Event, State, Status, github, header, signature};

fn given(headers: &HeaderMap) -> Result<&str, String> {
    let given = header(headers, "x-gitea-signature").or_else(|| header(headers, "x-forgejo-signature"));
    let given = given
        .filter(|tag| !tag.is_empty())
        .ok_or("the delivery has no `X-Gitea-Signature`: set the webhook's secret to the content of `secret_file`")?;
    Ok(given)
}

pub(super) fn greet(headers: &HeaderMap) -> Result<(), String> {
    given(headers).map(drop)
}

pub(super) fn verify(headers: &HeaderMap, body: &[u8], secret: &str) -> Result<(), String> {
    if signature::is_hex_hmac(given(headers)?, body, secret) {
        Ok(())
    } else {
        Err("the signature does not match the body and the secret in `secret_file`".to_owned())
    }
}

pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Event, String> {
    match header(headers, "x-gitea-event").or_else(|| header(headers, "x-forgejo-event")) {
        Some("push") => github::push(body),
        Some(other) => Ok(Event::Other(format!("the event `{other}` is not built; expected `push`"))),
        None => Err("the delivery has no `X-Gitea-Event`".to_owned()),
    }
}

pub(super) fn report(url: Url, status: &Status<'_>) -> Call {
    let state = match status.state {
        State::Waiting | State::Running => "pending",
        State::Success => "success",
        State::Failure => "failure",
        State::Error | State::Cancelled => "error",
    };
    Call { url, credential: ("authorization", "token "), body: github::body(state, status) }
}
