//! Turborepo's remote cache, version 8 of Vercel's API.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method, StatusCode};

use crate::ask::{Ask, Fixed, Put};
use crate::refusal::Refusal;

/// Headers of an upload that come back with the download: how long the task ran, in ms; its signature; its commit.
const KEPT: [&str; 4] = ["x-artifact-duration", "x-artifact-tag", "x-artifact-sha", "x-artifact-dirty-hash"];
/// Longest value of these, in bytes.
const MAX_VALUE: usize = 600;

const STATUS: Fixed = Fixed::json(StatusCode::OK, r#"{"status":"enabled"}"#);
const STORED: Fixed = Fixed::json(StatusCode::ACCEPTED, r#"{"urls":[]}"#);
/// For `remoteCache.preflight`: the request may carry what it will carry.
const PREFLIGHT: Fixed = Fixed {
    status: StatusCode::OK,
    headers: &[
        ("access-control-allow-methods", "GET, HEAD, PUT, POST, OPTIONS"),
        (
            "access-control-allow-headers",
            "Authorization, Content-Type, User-Agent, x-artifact-client-ci, x-artifact-client-interactive, x-artifact-duration, \
             x-artifact-tag, x-artifact-sha, x-artifact-dirty-hash",
        ),
    ],
    body: "",
};

fn kept(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Refusal> {
    let mut kept = BTreeMap::new();
    for name in KEPT {
        let Some(value) = headers.get(name) else { continue };
        let value = value.to_str().ok().filter(|value| value.len() <= MAX_VALUE);
        let value = value.ok_or_else(|| Refusal::Malformed(format!("`{name}` is too long, or not text")))?;
        kept.insert(name.to_owned(), value.to_owned());
    }
    Ok(kept)
}

pub(super) fn ask(method: &Method, segments: &[&str], headers: &HeaderMap) -> Result<Ask, Refusal> {
    let ["v8", "artifacts", ref rest @ ..] = *segments else { return Err(Refusal::Unknown) };
    match (method, rest) {
        (&Method::OPTIONS, _) => Ok(Ask::Answer(PREFLIGHT)),
        (&Method::POST, []) => Ok(Ask::List),
        (&Method::GET, ["status"]) => Ok(Ask::Answer(STATUS)),
        (&Method::POST, ["events"]) => Ok(Ask::Ignore(super::DONE)),
        (_, [hash]) => {
            let key = super::lawful(hash, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))?;
            match super::keyed(method, key, false)? {
                Ask::Put(put) => Ok(Ask::Put(Put { headers: kept(headers)?, answer: STORED, ..put })),
                ask => Ok(ask),
            }
        }
        _ => Err(Refusal::Method),
    }
}
