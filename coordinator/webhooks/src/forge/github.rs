//! GitHub: `X-Hub-Signature-256`, `push` events, commit statuses.

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::{Call, Event, Push, State, Status, cut, header, is_nothing, linked, parse, signature};

/// Characters of a status's description.
const MAX_DESCRIPTION: usize = 140;

#[derive(Deserialize)]
pub(super) struct Payload {
    #[serde(rename = "ref")]
    reference: String,
    after: String,
    /// The commit of an annotated tag, for which `after` is the id of the tag object.
    head_commit: Option<Commit>,
    repository: Repository,
    pusher: Option<Pusher>,
}

#[derive(Deserialize)]
struct Commit {
    id: String,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
    clone_url: String,
    #[serde(default)]
    ssh_url: String,
    #[serde(default)]
    html_url: String,
    #[serde(default)]
    default_branch: String,
}

#[derive(Deserialize)]
struct Pusher {
    /// Gitea calls it `username` and `login`.
    #[serde(alias = "username")]
    name: Option<String>,
    login: Option<String>,
}

fn given(headers: &HeaderMap) -> Result<&str, String> {
    let given = header(headers, "x-hub-signature-256")
        .ok_or("the delivery has no `X-Hub-Signature-256`: set the webhook's secret to the content of `secret_file`")?;
    Ok(given)
}

pub(super) fn greet(headers: &HeaderMap) -> Result<(), String> {
    given(headers).map(drop)
}

pub(super) fn verify(headers: &HeaderMap, body: &[u8], secret: &str) -> Result<(), String> {
    match given(headers)?.strip_prefix("sha256=") {
        Some(tag) if signature::is_hex_hmac(tag, body, secret) => Ok(()),
        _ => Err("the signature does not match the body and the secret in `secret_file`".to_owned()),
    }
}

pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Event, String> {
    match header(headers, "x-github-event") {
        Some("push") => push(body),
        Some("ping") => Ok(Event::Other("the webhook works; pushes will be built".to_owned())),
        Some(other) => Ok(Event::Other(format!("the event `{other}` is not built; expected `push`"))),
        None => Err("the delivery has no `X-GitHub-Event`".to_owned()),
    }
}

/// A push in GitHub's format, which Gitea uses too.
pub(super) fn push(body: &[u8]) -> Result<Event, String> {
    let payload: Payload = parse(body)?;
    if is_nothing(&payload.after) {
        return Ok(Event::Other(format!("`{}` was deleted", payload.reference)));
    }
    let Repository { full_name, clone_url, ssh_url, html_url, default_branch } = payload.repository;
    let user = payload.pusher.and_then(|pusher| pusher.login.or(pusher.name)).unwrap_or_default();
    Ok(Event::Push(Push {
        addresses: [clone_url, ssh_url, html_url].into_iter().filter(|address| !address.is_empty()).collect(),
        path: full_name,
        reference: payload.reference,
        commit: payload.head_commit.map_or(payload.after, |commit| commit.id),
        user,
        default_branch,
    }))
}

pub(super) fn report(url: Url, status: &Status<'_>) -> Call {
    let state = match status.state {
        State::Waiting | State::Running => "pending",
        State::Success => "success",
        State::Failure => "failure",
        State::Error | State::Cancelled => "error",
    };
    Call { url, credential: ("authorization", "Bearer "), body: body(state, status) }
}

/// A status in GitHub's format, which Gitea uses too.
pub(super) fn body(state: &str, status: &Status<'_>) -> serde_json::Value {
    let body = json!({
        "state": state,
        "context": status.context,
        "description": cut(&status.description, MAX_DESCRIPTION),
    });
    linked(body, status)
}
