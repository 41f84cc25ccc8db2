//! Answers, as the tools understand them.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use kiln_proto::digest::Digest;
use serde::Deserialize;
use serde_json::json;

use crate::{Entry, Fixed, Refusal, Tool};

/// Largest list of keys, in bytes.
pub const MAX_LIST: usize = 1 << 20;
/// Keys of one list.
const MAX_KEYS: usize = 10_000;

#[derive(Debug, Deserialize)]
struct Keys {
    hashes: Vec<String>,
}

/// An answer that is known in advance.
pub fn fixed(fixed: &Fixed) -> Response {
    let mut answer = (fixed.status, fixed.body).into_response();
    answer.headers_mut().remove(CONTENT_TYPE);
    for (name, value) in fixed.headers {
        answer.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    answer
}

/// An entry's headers; the body is empty where only they were asked for.
pub fn described(digest: &Digest, kept: &BTreeMap<String, String>, body: Body) -> Response {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, digest.size.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", digest.hex())) {
        headers.insert(ETAG, tag);
    }
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    answer
}

/// Why a request is not carried out.
pub fn refused(refusal: &Refusal, tool: Tool) -> Response {
    let status = refusal.status(tool);
    let words = refusal.words();
    let mut answer = match tool {
        Tool::Turbo => {
            let code = if status == StatusCode::FORBIDDEN { "forbidden" } else { "error" };
            let body = json!({ "error": { "code": code, "message": words } }).to_string();
            (status, [(CONTENT_TYPE, "application/json")], body).into_response()
        }
        _ => (status, format!("{words}\n")).into_response(),
    };
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"kiln\""));
    }
    answer
}

/// The keys that a body lists (Turborepo).
///
/// # Errors
/// If it is no such list, or too long.
pub fn listed(body: &[u8]) -> Result<Vec<String>, Refusal> {
    let asked: Keys = serde_json::from_slice(body).map_err(|error| Refusal::Malformed(error.to_string()))?;
    if asked.hashes.len() > MAX_KEYS {
        return Err(Refusal::Malformed(format!("more than {MAX_KEYS} hashes are listed")));
    }
    Ok(asked.hashes)
}

/// Which of the listed entries exist, with their size and how long their tasks ran.
pub fn list(entries: impl IntoIterator<Item = (String, Option<Entry>)>) -> Response {
    let described = |entry: Entry| {
        let duration = entry.headers.get("x-artifact-duration").and_then(|ms| ms.parse::<u64>().ok());
        json!({ "size": entry.body.size, "taskDurationMs": duration.unwrap_or(0), "tag": entry.headers.get("x-artifact-tag") })
    };
    let found: serde_json::Map<String, serde_json::Value> =
        entries.into_iter().map(|(hash, entry)| (hash, entry.map_or(json!(null), described))).collect();
    ([(CONTENT_TYPE, "application/json")], serde_json::Value::Object(found).to_string()).into_response()
}

/// RFC 4918, 9.1: an entry is a file, and everything else a directory.
pub fn properties(key: &str, entry: Option<&Entry>) -> Response {
    let (slash, kind) = match entry {
        Some(entry) => ("", format!("<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength>", entry.body.size)),
        None => ("/", "<D:resourcetype><D:collection/></D:resourcetype>".to_owned()),
    };
    // A key has no character that XML would take for its own.
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>/cache/{}/{key}{slash}</D:href>\
         <D:propstat><D:prop><D:getlastmodified>Sat, 01 Jan 2000 00:00:00 GMT</D:getlastmodified>{kind}</D:prop>\
         <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>\n",
        Tool::Sccache.name()
    );
    (StatusCode::MULTI_STATUS, [(CONTENT_TYPE, "application/xml; charset=utf-8")], body).into_response()
}
