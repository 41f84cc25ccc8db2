//! From a request to its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, EXPECT, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, request};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use kiln_auth::audit::{Audit, Requested};
use kiln_auth::{Authenticator, Identity};
use kiln_proto::digest::Digest;
use kiln_store::Stores;
use serde::Deserialize;
use serde_json::json;
use tonic::Code;

use crate::ask::{Ask, Fixed, Put, Verb};
use crate::body::{self, Pieces, Room};
use crate::caller::{self, Caller};
use crate::entries::{self, Drawer, Entry};
use crate::metrics::ToolCacheMetrics;
use crate::place::Place;
use crate::refusal::Refusal;
use crate::results::Sizes;
use crate::tool::Tool;
use crate::{Tenants, dialects};

/// Bytes of a refused body that are read, so that its sender reads the answer and not a broken connection.
const DRAINED: u64 = 4 << 30;
/// The same of somebody who is not known.
const DRAINED_OF_STRANGERS: u64 = 1 << 20;
/// Largest list of keys, in bytes.
const MAX_LIST: usize = 1 << 20;
/// Keys of one list.
const MAX_KEYS: usize = 10_000;
/// The header that names a scope, where a tool can send headers.
const SCOPE: &str = "kiln-scope";

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) room: Room,
    pub(crate) authenticator: Authenticator,
    pub(crate) audit: Option<Audit>,
    pub(crate) tenants: Arc<dyn Tenants>,
    pub(crate) metrics: Option<ToolCacheMetrics>,
    pub(crate) sizes: Sizes,
}

/// The caches of all tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    shared: Arc<Shared>,
}

/// A request as far as it was understood.
#[derive(Debug, Default)]
struct Understood {
    tool: Option<Tool>,
    ask: Option<Ask>,
    identity: Option<Identity>,
}

#[derive(Debug, Deserialize)]
struct Keys {
    hashes: Vec<String>,
}

impl Caches {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn router(self) -> Router {
        Router::new().fallback(handle).with_state(self)
    }

    async fn answer(
        &self,
        parts: &mut request::Parts,
        pieces: &mut Pieces,
        understood: &mut Understood,
    ) -> Result<Response, Refusal> {
        let place = Place::of(parts.uri.path())?;
        let tool = *understood.tool.insert(place.tool);
        let ask = dialects::ask(tool, &parts.method, &place.segments, &parts.headers);
        // A browser's question before the request carries no token, and the answer says nothing.
        if let (Ok(Ask::Answer(fixed)), &Method::OPTIONS) = (&ask, &parts.method) {
            return Ok(fixed_answer(fixed));
        }
        let identity = caller::identify(&self.shared.authenticator, parts).await?;
        understood.identity = Some(identity.clone());
        let ask = understood.ask.insert(ask?).clone();
        let scope = caller::scope(&identity, named_scope(parts, place.scope)?)?;
        let stores = self.shared.tenants.stores(&identity.tenant).await;
        let stores = stores.map_err(|status| Refusal::Fault(status.message().to_owned()))?;
        let caller = Caller { identity, stores, scope };
        caller.may_read()?;
        let answer = self.perform(tool, ask, &caller, pieces).await?;
        // A caller who is revoked meanwhile gets no more of it.
        let end = kiln_auth::end(caller.identity, self.shared.authenticator.known());
        let (parts, body) = answer.into_parts();
        let is_empty = axum::body::HttpBody::size_hint(&body).exact() == Some(0);
        let body = if is_empty { body } else { Body::from_stream(body.into_data_stream().take_until(end)) };
        Ok(Response::from_parts(parts, body))
    }

    async fn perform(&self, tool: Tool, ask: Ask, caller: &Caller, pieces: &mut Pieces) -> Result<Response, Refusal> {
        let drawer = Drawer { tool, kind: "", scope: caller.scope.as_deref() };
        let stores = &caller.stores;
        let sizes = &self.shared.sizes;
        match ask {
            Ask::Answer(fixed) => Ok(fixed_answer(&fixed)),
            Ask::Ignore(fixed) => {
                pieces.whole(MAX_LIST).await?;
                Ok(fixed_answer(&fixed))
            }
            Ask::Get(key) => {
                let entry = entries::find(stores, drawer, &key).await?.ok_or(Refusal::Missing)?;
                let body = Body::from_stream(body::read(&entry.body, stores).await?);
                self.moved(tool, "out", entry.body.size);
                Ok(described(&entry.body, &entry.headers, body))
            }
            Ask::Head(key) => {
                let entry = entries::find(stores, drawer, &key).await?.ok_or(Refusal::Missing)?;
                Ok(described(&entry.body, &entry.headers, Body::empty()))
            }
            Ask::Find(key) => {
                let entry = if key.is_empty() { None } else { entries::find(stores, drawer, &key).await? };
                Ok(properties(&key, entry.as_ref()))
            }
            Ask::List => list(stores, drawer, &pieces.whole(MAX_LIST).await?).await,
            Ask::Put(put) => {
                caller.may_write()?;
                self.put(drawer, put, caller, pieces).await
            }
            Ask::Delete(key) => {
                caller.may_write()?;
                let was = entries::remove(&caller.stores, drawer, &key).await?;
                if was { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(Refusal::Missing) }
            }
            Ask::Blob(hash, Verb::Put) => {
                caller.may_upload()?;
                sizes.put_blob(caller, &self.shared.room, &hash, pieces).await?;
                self.moved(tool, "in", pieces.received());
                Ok(StatusCode::OK.into_response())
            }
            Ask::Blob(hash, verb) => {
                let digest = sizes.blob(caller, &hash).await?;
                if verb == Verb::Head {
                    return Ok(described(&digest, &BTreeMap::new(), Body::empty()));
                }
                let body = Body::from_stream(body::read(&digest, &caller.stores).await?);
                self.moved(tool, "out", digest.size);
                Ok(described(&digest, &BTreeMap::new(), body))
            }
            Ask::Result(hash, Verb::Put) => {
                caller.may_write()?;
                sizes.put_result(caller, &hash, pieces).await?;
                Ok(StatusCode::OK.into_response())
            }
            Ask::Result(hash, verb) => {
                let result = sizes.result(caller, &hash).await?;
                let size = HeaderValue::from(result.len());
                let body = if verb == Verb::Head { Body::empty() } else { Body::from(result) };
                Ok(([(CONTENT_LENGTH, size)], body).into_response())
            }
        }
    }

    async fn put(
        &self,
        drawer: Drawer<'_>,
        put: Put,
        caller: &Caller,
        pieces: &mut Pieces,
    ) -> Result<Response, Refusal> {
        let stores = &caller.stores;
        if !put.replaces && entries::find(stores, drawer, &put.key).await?.is_some() {
            return Err(Refusal::Exists);
        }
        let received = self.shared.room.receive(pieces).await?;
        let hold = stores.in_use.begin();
        let body = received.store(stores).await?;
        entries::keep(stores, drawer, &put.key, &Entry { body, headers: put.headers }).await?;
        drop(hold);
        self.moved(drawer.tool, "in", body.size);
        Ok(fixed_answer(&put.answer))
    }

    fn moved(&self, tool: Tool, direction: &'static str, bytes: u64) {
        if let Some(metrics) = &self.shared.metrics {
            metrics.moved(tool, direction, bytes);
        }
    }

    /// Writes down how a request ended.
    fn note(&self, parts: &request::Parts, understood: &Understood, status: StatusCode, refusal: Option<&Refusal>) {
        let asked = understood.ask.as_ref().map_or("other", Ask::name);
        if let (Some(metrics), Some(tool)) = (&self.shared.metrics, understood.tool) {
            metrics.answered(tool, asked, status.as_u16());
        }
        if let Some(audit) = &self.shared.audit {
            let caller = parts.extensions.get::<kiln_auth::Caller>();
            audit.request(&Requested {
                call: &format!("{} cache of {}", parts.method, understood.tool.map_or("no tool", Tool::name)),
                identity: understood.identity.as_ref(),
                address: caller.and_then(|caller| caller.address),
                code: refusal.map_or(Code::Ok, Refusal::code),
                message: &refusal.map(Refusal::words).unwrap_or_default(),
                subject: &understood.ask.as_ref().map(Ask::subject).unwrap_or_default(),
                is_change: understood.ask.as_ref().is_some_and(Ask::is_change),
            });
        }
    }
}

async fn handle(State(caches): State<Caches>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut pieces = Pieces::new(body.into_data_stream(), announced);
    let mut understood = Understood::default();
    let answered = caches.answer(&mut parts, &mut pieces, &mut understood).await;
    let (answer, refusal) = match answered {
        Ok(answer) => (answer, None),
        Err(refusal) => {
            tracing::debug!(path = parts.uri.path(), reason = refusal.words(), "refused a build tool's request");
            // A client that waits to be told to go on has sent nothing.
            if !parts.headers.contains_key(EXPECT) {
                let known = understood.identity.is_some();
                pieces.drain(if known { DRAINED } else { DRAINED_OF_STRANGERS }).await;
            }
            // Whoever is at no tool's address is told as most tools would be.
            (refused(&refusal, understood.tool.unwrap_or(Tool::Ccache)), Some(refusal))
        }
    };
    caches.note(&parts, &understood, answer.status(), refusal.as_ref());
    answer
}

fn named_scope(parts: &request::Parts, in_path: Option<String>) -> Result<Option<String>, Refusal> {
    let Some(header) = parts.headers.get(SCOPE) else { return Ok(in_path) };
    let named = header.to_str().map_err(|_| Refusal::Malformed(format!("the header `{SCOPE}` is not text")))?;
    kiln_auth::check_scope(named).map_err(Refusal::Malformed)?;
    match in_path {
        Some(path) if path != named => {
            Err(Refusal::Malformed("the path and the header name different scopes".to_owned()))
        }
        _ => Ok(Some(named.to_owned())),
    }
}

fn fixed_answer(fixed: &Fixed) -> Response {
    let mut answer = (fixed.status, fixed.body).into_response();
    answer.headers_mut().remove(CONTENT_TYPE);
    for (name, value) in fixed.headers {
        answer.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    answer
}

/// An entry's headers; the body is empty where only they were asked for.
fn described(digest: &Digest, kept: &BTreeMap<String, String>, body: Body) -> Response {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, digest.size.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", digest.hex())) {
        headers.insert(ETAG, tag);
    }
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (name.parse::<axum::http::HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    answer
}

fn refused(refusal: &Refusal, tool: Tool) -> Response {
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

/// Which of the listed entries exist, with their size and how long their tasks ran.
async fn list(stores: &Stores, drawer: Drawer<'_>, body: &[u8]) -> Result<Response, Refusal> {
    let asked: Keys = serde_json::from_slice(body).map_err(|error| Refusal::Malformed(error.to_string()))?;
    if asked.hashes.len() > MAX_KEYS {
        return Err(Refusal::Malformed(format!("more than {MAX_KEYS} hashes are listed")));
    }
    let mut found = serde_json::Map::new();
    for hash in asked.hashes {
        let value = match entries::find(stores, drawer, &hash).await? {
            None => json!(null),
            Some(entry) => {
                let duration = entry.headers.get("x-artifact-duration").and_then(|ms| ms.parse::<u64>().ok());
                json!({ "size": entry.body.size, "taskDurationMs": duration.unwrap_or(0), "tag": entry.headers.get("x-artifact-tag") })
            }
        };
        found.insert(hash, value);
    }
    let body = serde_json::Value::Object(found).to_string();
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// RFC 4918, 9.1: an entry is a file, and everything else a directory.
fn properties(key: &str, entry: Option<&Entry>) -> Response {
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
