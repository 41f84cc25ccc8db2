//! From a request to its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderValue, Method, StatusCode, request};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use kiln_auth::audit::{Audit, Requested};
use kiln_auth::{Authenticator, Identity};
use kiln_dialects::answers::{self, MAX_LIST};
use kiln_dialects::{Ask, Entry, Pieces, Place, Put, Refusal, Room, Tool, Verb};
use tonic::Code;

use crate::caller::{self, Caller};
use crate::entries::{self, Drawer};
use crate::metrics::ToolCacheMetrics;
use crate::results::Sizes;
use crate::{Tenants, body, refusal};

/// Bytes of a refused body that are read, so that its sender reads the answer and not a broken connection.
const DRAINED: u64 = 4 << 30;
/// The same of somebody who is not known.
const DRAINED_OF_STRANGERS: u64 = 1 << 20;
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
        let ask = kiln_dialects::ask(tool, &parts.method, &place.segments, &parts.headers);
        // A browser's question before the request carries no token, and the answer says nothing.
        if let (Ok(Ask::Answer(fixed)), &Method::OPTIONS) = (&ask, &parts.method) {
            return Ok(answers::fixed(fixed));
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
            Ask::Answer(fixed) => Ok(answers::fixed(&fixed)),
            Ask::Ignore(fixed) => {
                pieces.whole(MAX_LIST).await?;
                Ok(answers::fixed(&fixed))
            }
            Ask::Get(key) => {
                let entry = entries::find(stores, drawer, &key).await?.ok_or(Refusal::Missing)?;
                let body = Body::from_stream(body::read(&entry.body, stores).await?);
                self.moved(tool, "out", entry.body.size);
                Ok(answers::described(&entry.body, &entry.headers, body))
            }
            Ask::Head(key) => {
                let entry = entries::find(stores, drawer, &key).await?.ok_or(Refusal::Missing)?;
                Ok(answers::described(&entry.body, &entry.headers, Body::empty()))
            }
            Ask::Find(key) => {
                let entry = if key.is_empty() { None } else { entries::find(stores, drawer, &key).await? };
                Ok(answers::properties(&key, entry.as_ref()))
            }
            Ask::List => {
                let keys = answers::listed(&pieces.whole(MAX_LIST).await?)?;
                let mut found = Vec::with_capacity(keys.len());
                for key in keys {
                    let entry = entries::find(stores, drawer, &key).await?;
                    found.push((key, entry));
                }
                Ok(answers::list(found))
            }
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
                    return Ok(answers::described(&digest, &BTreeMap::new(), Body::empty()));
                }
                let body = Body::from_stream(body::read(&digest, &caller.stores).await?);
                self.moved(tool, "out", digest.size);
                Ok(answers::described(&digest, &BTreeMap::new(), body))
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
        let body = body::store(received, stores).await?;
        entries::keep(caller, drawer, &put.key, &Entry { body, headers: put.headers }).await?;
        drop(hold);
        self.moved(drawer.tool, "in", body.size);
        Ok(answers::fixed(&put.answer))
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
                code: refusal.map_or(Code::Ok, refusal::code),
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
            (answers::refused(&refusal, understood.tool.unwrap_or(Tool::Ccache)), Some(refusal))
        }
    };
    caches.note(&parts, &understood, answer.status(), refusal.as_ref());
    answer
}

fn named_scope(parts: &request::Parts, in_path: Option<String>) -> Result<Option<String>, Refusal> {
    in_path.as_deref().map_or(Ok(()), |scope| kiln_auth::check_scope(scope).map_err(Refusal::Malformed))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_a_lawful_name_and_only_one() {
        let named = |header: Option<&str>, path: Option<&str>| {
            let mut request = axum::http::Request::new(());
            let value = header.map(|header| HeaderValue::from_str(header).unwrap());
            value.map(|value| request.headers_mut().insert(SCOPE, value));
            named_scope(&request.into_parts().0, path.map(str::to_owned))
        };
        assert_eq!(named(None, Some("refs/pull/7")), Ok(Some("refs/pull/7".to_owned())));
        assert_eq!(named(Some("a"), None), Ok(Some("a".to_owned())));
        for (header, path) in [(None, Some("\n")), (None, Some("")), (Some("a"), Some("b")), (Some("a\tb"), None)] {
            assert!(matches!(named(header, path), Err(Refusal::Malformed(_))), "{header:?} {path:?}");
        }
    }
}
