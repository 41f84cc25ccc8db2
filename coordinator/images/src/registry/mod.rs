//! A client for registries with the OCI distribution protocol: manifests, blobs, and resumable uploads.
//!
//! (Implemented here because uploads must be resumable and a stalled one must be detected; `oci-client` offers
//! neither.)
//! Invariants: credentials are sent only to their registry and to the realm that it names, whatever the redirects;
//! plain HTTP is only used for this machine and for registries listed as insecure; certificates are always verified;
//! every attempt has a time limit; no host outside the [`Reach`] is contacted.
//! Source: OCI distribution specification 1.1.

mod auth;
mod challenge;
pub mod credentials;
mod download;
mod error;
mod manifests;
mod reach;
mod referrers;
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
pub use reach::{Clients, Invalid as InvalidPattern, Pattern, Reach, Refused};
pub(crate) use referrers::tag as referrers_tag;
pub use retry::Attempts;
use retry::Movement;
pub use transport::{is_this_machine, words};
pub use upload::Uploaded;

/// Maximum bytes of an error response that are read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Options of the client.
#[derive(Debug, Clone)]
pub struct Options {
    /// Registries, as host or host and port, that may be contacted over plain HTTP.
    pub insecure: Vec<String>,
    /// A request is aborted and retried after this time without progress.
    pub stall: Duration,
    /// Maximum number of attempts per request, including the first.
    pub attempts: u32,
    /// Size of one part of an upload.
    pub chunk_bytes: usize,
    /// Which hosts may be contacted.
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

/// The access that a request needs to a repository.
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

/// A client for all registries with one user's credentials. Cheap to clone.
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

/// What a request is for.
struct Ask<'a> {
    repository: &'a Reference,
    access: Access,
    /// A phrase for errors: `when it was asked for a manifest`.
    doing: &'static str,
    /// Another repository in the same registry from which a blob is mounted.
    beside: Option<&'a Reference>,
}

impl Registries {
    /// A client with these credentials.
    pub fn new(options: Options, credentials: Credentials) -> Self {
        // A provider that was installed earlier is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = Inner { options, credentials, clients: Mutex::default(), authorizations: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The client's options.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Sends a request until there is a final response: neither a 401 that a login can resolve, nor a temporary
    /// failure.
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

    /// Sends a request, and once more if the registry requires authentication.
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
            // An upload may continue at another host, authorised by its URL.
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
                reason: "401 without a supported scheme (Basic or Bearer)".to_owned(),
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

    /// Converts an unsuccessful response to an error.
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

    /// The registry's error message, as far as it can be shown. For a request on behalf of someone else, only a
    /// response in the format of a registry's errors is shown, because anything else might be confidential.
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

/// Statuses after which a retry in a moment may succeed.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED && status != StatusCode::INSUFFICIENT_STORAGE
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// There is no error code for a full registry: messages of the file system or about a quota are recognised.
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
