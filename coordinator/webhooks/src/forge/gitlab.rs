//! GitLab: a secret token or a signing token, `Push Hook` and `Tag Push Hook`, commit statuses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::{Call, Event, Push, State, Status, cut, header, is_nothing, linked, parse, signature};

/// Maximum difference between the time of a signed delivery and now.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// Characters of a status's description.
const MAX_DESCRIPTION: usize = 255;

#[derive(Deserialize)]
struct Payload {
    object_kind: String,
    #[serde(rename = "ref")]
    reference: String,
    after: String,
    /// The commit of an annotated tag, for which `after` is the id of the tag object.
    checkout_sha: Option<String>,
    project: Project,
    #[serde(default)]
    user_username: String,
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: String,
    git_http_url: String,
    #[serde(default)]
    git_ssh_url: String,
    #[serde(default)]
    web_url: String,
    #[serde(default)]
    default_branch: String,
}

/// A token is checked at once, a signature once the body has been read.
pub(super) fn greet(headers: &HeaderMap, secret: &str) -> Result<(), String> {
    match header(headers, "webhook-signature") {
        Some(_) => Ok(()),
        None => by_token(headers, secret),
    }
}

/// By `webhook-signature` if GitLab has a signing token, otherwise by `X-Gitlab-Token`.
pub(super) fn verify(headers: &HeaderMap, body: &[u8], secret: &str, now: SystemTime) -> Result<(), String> {
    if let Some(given) = header(headers, "webhook-signature") {
        return signed(headers, body, secret, given, now);
    }
    by_token(headers, secret)
}

fn by_token(headers: &HeaderMap, secret: &str) -> Result<(), String> {
    let given = header(headers, "x-gitlab-token").ok_or(
        "the delivery has neither `webhook-signature` nor `X-Gitlab-Token`: set the webhook's signing token or secret token to the \
         content of `secret_file`",
    )?;
    if signature::is_same(given, secret) {
        Ok(())
    } else {
        Err("`X-Gitlab-Token` does not match `secret_file`".to_owned())
    }
}

/// As in the Standard Webhooks specification: over the delivery's id, its time and the body.
fn signed(headers: &HeaderMap, body: &[u8], secret: &str, given: &str, now: SystemTime) -> Result<(), String> {
    let part = |name| header(headers, name).ok_or_else(|| format!("the delivery is signed, but has no `{name}`"));
    let (id, time) = (part("webhook-id")?, part("webhook-timestamp")?);
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| "`secret_file` has no base64 after `whsec_`".to_owned())?
        }
        None => secret.as_bytes().to_vec(),
    };
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    let mut tags = given.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    if !tags.any(|tag| signature::is_base64_hmac(tag, &parts, &key)) {
        return Err("`webhook-signature` does not match the body and the secret in `secret_file`".to_owned());
    }
    let sent = time.parse().ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let sent = sent.ok_or_else(|| format!("`webhook-timestamp` is `{time}`; expected seconds since 1970"))?;
    let off = now.duration_since(sent).unwrap_or_else(|early| early.duration());
    if off > TOLERANCE {
        return Err(format!(
            "the delivery was signed {} seconds before or after the current time; expected at most {}: it is a replay, or a clock is wrong",
            off.as_secs(),
            TOLERANCE.as_secs()
        ));
    }
    Ok(())
}

pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Event, String> {
    match header(headers, "x-gitlab-event") {
        Some("Push Hook" | "Tag Push Hook" | "System Hook") => {}
        Some(other) => {
            return Ok(Event::Other(format!(
                "the event `{other}` is not built; expected `Push Hook` or `Tag Push Hook`"
            )));
        }
        None => return Err("the delivery has no `X-Gitlab-Event`".to_owned()),
    }
    let payload: Payload = parse(body)?;
    if !matches!(payload.object_kind.as_str(), "push" | "tag_push") {
        return Ok(Event::Other(format!("`{}` is not built", payload.object_kind)));
    }
    if is_nothing(&payload.after) {
        return Ok(Event::Other(format!("`{}` was deleted", payload.reference)));
    }
    let Project { path_with_namespace, git_http_url, git_ssh_url, web_url, default_branch } = payload.project;
    Ok(Event::Push(Push {
        addresses: [git_http_url, git_ssh_url, web_url].into_iter().filter(|address| !address.is_empty()).collect(),
        path: path_with_namespace,
        reference: payload.reference,
        commit: payload.checkout_sha.unwrap_or(payload.after),
        user: payload.user_username,
        default_branch,
    }))
}

pub(super) fn report(url: Url, push: &Push, status: &Status<'_>) -> Call {
    let state = match status.state {
        State::Waiting => "pending",
        State::Running => "running",
        State::Success => "success",
        State::Failure | State::Error => "failed",
        State::Cancelled => "canceled",
    };
    let name = push.reference.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/");
    let body = json!({
        "state": state,
        "name": status.context,
        "ref": name,
        "description": cut(&status.description, MAX_DESCRIPTION),
    });
    Call { url, credential: ("private-token", ""), body: linked(body, status) }
}
