//! Registries by the OCI distribution protocol: manifests, blobs, uploads that go on where they broke off.
//!
//! (Hand-made over HTTP, because uploads must go on where they broke off and a stuck one must be noticed; `oci-client` describes neither.)
//! Invariants: credentials go only to the registry they are for and the realm that it names, whatever redirects; plain HTTP is spoken
//! only to this machine and to registries that are named as insecure; certificates are always verified; every attempt is bounded; no
//! host is asked that the [`Reach`] leaves out.
//! Source: OCI distribution specification 1.1.

mod auth;
mod challenge;
pub mod credentials;
mod download;
mod error;
mod manifests;
mod reach;
mod retry;
mod transport;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use crate::reference::Reference;
use auth::Authorization;
pub use credentials::{Credentials, Login, server_name};
pub use download::Repository;
pub use error::Error;
pub use reach::{Invalid as InvalidPattern, Pattern, Reach};
pub use retry::Attempts;
use retry::Movement;
pub use transport::{is_this_machine, words};
pub use upload::Uploaded;

/// Most bytes of an error that are read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Registries, as host or host and port, to which plain HTTP may be spoken.
    pub insecure: Vec<String>,
    /// After how long without a byte moving a request is given up and tried again.
    pub stall: Duration,
    /// How often a request is tried, the first time included.
    pub attempts: u32,
    /// Bytes of one part of an upload.
    pub chunk_bytes: usize,
    /// Which hosts may be asked.
    pub reach: Reach,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            stall: Duration::from_secs(30),
            attempts: 5,
            chunk_bytes: 8 << 20,
            reach: Reach::anywhere(),
        }
    }
}

/// What is asked for in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Access {
    Pull,
    Push,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Self::Pull => "pulling",
            Self::Push => "pushing to",
        }
    }
}

/// All registries, as one user. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registries {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    credentials: Credentials,
    clients: Mutex<HashMap<String, transport::Host>>,
    authorizations: Mutex<HashMap<(String, String, Access), Authorization>>,
}

/// A request that is made.
struct Ask<'a> {
    repository: &'a Reference,
    access: Access,
    /// In words, for errors: `asking for a manifest`.
    doing: &'static str,
    /// Repositories beside, in the same registry, that are read from: a blob is mounted from there.
    beside: Option<&'a Reference>,
}

impl Registries {
    /// Registries as the user of these credentials.
    pub fn new(options: Options, credentials: Credentials) -> Self {
        // Whoever installed one before is left alone.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = Inner { options, credentials, clients: Mutex::default(), authorizations: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// How they are spoken to.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Sends a request until it is answered with something final: neither 401 that a login mends, nor a failure that passes.
    async fn send(
        &self,
        ask: &Ask<'_>,
        build: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let mut attempts = Attempts::new(self.inner.options.attempts);
        loop {
            let result = self.send_once(ask, &Movement::new(), &build).await;
            let (error, asked) = match result {
                Ok(response) if is_passing(response.status()) => {
                    let asked = retry_after(response.headers());
                    (self.failing(ask, response).await, asked)
                }
                Ok(response) => return Ok(response),
                Err(error) => (error, None),
            };
            if !error.is_passing() || !attempts.again(asked).await {
                return Err(error);
            }
            tracing::debug!(%error, "trying again");
        }
    }

    /// Sends a request once, and once more where the registry wants to know who asks.
    async fn send_once(
        &self,
        ask: &Ask<'_>,
        movement: &Movement,
        build: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let registry = ask.repository.registry();
        let host = self.host(registry).await?;
        let key = auth::key(ask);
        let mut asked = false;
        loop {
            let known = lock(&self.inner.authorizations).get(&key).cloned();
            let built = build(host.client(), &host.base).build();
            let mut request = built.map_err(|error| transport::failed(registry, &error))?;
            // An upload may go on elsewhere, with what its URL has of a permission.
            if let Some(known) = known.filter(|_| host.is_origin_of(request.url())) {
                request.headers_mut().insert(AUTHORIZATION, known.header());
            }
            let stall = self.inner.options.stall;
            let answered = movement.watch(stall, host.execute(request)).await;
            let stalled = || Error::Stalled { registry: registry.to_owned(), doing: ask.doing, after: stall };
            let response = answered.ok_or_else(stalled)??;
            if response.status() != StatusCode::UNAUTHORIZED || !host.is_origin_of(response.url()) {
                return Ok(response);
            }
            if asked {
                return Err(self.refused_login(ask).await);
            }
            asked = true;
            let header = response.headers().get(WWW_AUTHENTICATE).and_then(|header| header.to_str().ok());
            let challenge = header.and_then(challenge::parse).ok_or_else(|| Error::Malformed {
                registry: registry.to_owned(),
                doing: ask.doing,
                reason: "401 without a scheme that is known (Basic or Bearer)".to_owned(),
            })?;
            let authorization = self.authorize(ask, &host, &challenge).await?;
            lock(&self.inner.authorizations).insert(key.clone(), authorization);
        }
    }

    async fn refused_login(&self, ask: &Ask<'_>) -> Error {
        let registry = ask.repository.registry().to_owned();
        match self.inner.credentials.login(&registry).await {
            Ok(Some(login)) => Error::Credentials { registry, user: login.user, from: login.from },
            Ok(None) => Error::NoCredentials { registry, repository: ask.repository.repository().to_owned() },
            Err(error) => error,
        }
    }

    /// What an answer that is no success means.
    async fn refused(&self, ask: &Ask<'_>, response: Response) -> Error {
        let status = response.status();
        if is_passing(status) {
            return self.failing(ask, response).await;
        }
        let registry = ask.repository.registry().to_owned();
        let repository = ask.repository.repository().to_owned();
        let detail = self.detail(&registry, response).await;
        match status {
            StatusCode::INSUFFICIENT_STORAGE | StatusCode::PAYLOAD_TOO_LARGE => Error::Full { registry, detail },
            _ if is_full(&detail) => Error::Full { registry, detail },
            StatusCode::FORBIDDEN => Error::Denied { registry, repository, doing: ask.access.doing(), detail },
            StatusCode::NOT_FOUND if ask.access == Access::Pull => {
                Error::NotFound { reference: ask.repository.familiar(), hint: String::new() }
            }
            _ => Error::Refused { registry, doing: ask.doing, status: status.as_u16(), detail },
        }
    }

    async fn failing(&self, ask: &Ask<'_>, response: Response) -> Error {
        let (registry, status) = (ask.repository.registry().to_owned(), response.status().as_u16());
        let detail = self.detail(&registry, response).await;
        if is_full(&detail) || status == StatusCode::INSUFFICIENT_STORAGE.as_u16() {
            return Error::Full { registry, detail };
        }
        Error::Failing { registry, doing: ask.doing, status, detail }
    }

    /// What a registry says about an error, as far as it can be shown. On behalf of somebody else only what has the form of a registry's
    /// errors is: whatever else answers might not be theirs to read.
    async fn detail(&self, registry: &str, response: Response) -> String {
        let host = lock(&self.inner.clients).get(registry).cloned();
        let is_registrys = host.is_some_and(|host| host.is_origin_of(response.url()));
        let is_bounded = self.inner.options.reach.is_bounded();
        if is_bounded && !is_registrys {
            return String::new();
        }
        let text = tokio::time::timeout(self.inner.options.stall, transport::body(response, MAX_ERROR_BYTES)).await;
        let text = text.ok().and_then(Result::ok).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let said = match serde_json::from_str::<Errors>(&text) {
            Ok(found) => {
                let each = found.errors.iter().map(|error| match &error.detail {
                    serde_json::Value::Null => format!("{}: {}", error.code, error.message),
                    detail => format!("{}: {} ({detail})", error.code, error.message),
                });
                each.collect::<Vec<_>>().join("; ")
            }
            Err(_) if is_bounded => String::new(),
            Err(_) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        said.chars().filter(|c| !c.is_control()).take(300).collect()
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Said {
    code: String,
    message: String,
    detail: serde_json::Value,
}

/// Statuses after which the same may go well in a moment.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED && status != StatusCode::INSUFFICIENT_STORAGE
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// Registries have no code for it: the file system's words come through, or those for a quota.
fn is_full(detail: &str) -> bool {
    let detail = detail.to_lowercase();
    ["no space left", "quota", "enospc", "insufficient storage", "disk full"].iter().any(|word| detail.contains(word))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
