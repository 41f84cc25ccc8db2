//! Who visits, and which requests are answered at all.
//!
//! Invariants: every request passes [`Doors::admit`] first. A request that changes something comes from a page of this farm. Without
//! authentication, only addresses that no other site's name can stand for are served.

mod cookie;
mod links;
mod origin;
mod sessions;

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use kiln_auth::audit::{Audit, Requested};
use kiln_auth::{Authenticator, Caller, Identity, Shelf};
use tonic::{Code, Status};

pub use links::Links;
use sessions::Sessions;

/// What admission depends on.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) authenticator: Authenticator,
    pub(crate) audit: Option<Audit>,
    pub(crate) links: Links,
    /// Where sessions are kept, if the farm has several coordinators.
    pub(crate) shelf: Option<Arc<dyn Shelf>>,
    /// Browsers reach the pages over TLS, here or at a proxy.
    pub(crate) is_https: bool,
    pub(crate) port: u16,
    /// The name under which browsers reach the pages, if it is known.
    pub(crate) host: Option<String>,
}

/// All that stands between a request and a page. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Doors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    sessions: Sessions,
}

/// Who asks for a page.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) identity: Identity,
    /// They logged in, and can log out.
    pub(crate) has_session: bool,
    pub(crate) caller: Caller,
}

/// Why a request is not answered.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It reached this farm under a name that is not its own, as after DNS rebinding.
    Host,
    /// A form of another site, or a request that does not show where it is from.
    Origin,
    /// Nobody, or somebody whose credentials are no longer good; with the reason.
    Unknown(Status),
}

impl Doors {
    pub(crate) fn new(settings: Settings) -> Self {
        let sessions = Sessions::new(settings.shelf.clone());
        Self(Arc::new(Inner { settings, sessions }))
    }

    /// Whether visitors have to log in.
    pub(crate) fn asks(&self) -> bool {
        self.0.settings.authenticator.asks()
    }

    /// Checks where a request comes from, whoever sends it.
    pub(crate) fn admit(&self, parts: &Parts) -> Result<(), Refused> {
        let host = origin::host(parts);
        if !self.asks() && !origin::is_safe_host(host.as_deref(), self.0.settings.host.as_deref()) {
            return Err(Refused::Host);
        }
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let brings_credentials = parts.headers.contains_key(header::AUTHORIZATION);
        if !is_read && !brings_credentials && !origin::is_same(&parts.headers, host.as_deref()) {
            return Err(Refused::Origin);
        }
        Ok(())
    }

    /// Who sends a request: by its token, its session, or its connection's certificate.
    pub(crate) async fn identify(&self, parts: &Parts) -> Result<Visitor, Refused> {
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_default();
        let settings = &self.0.settings;
        if !parts.headers.contains_key(header::AUTHORIZATION)
            && let Some(identity) = self.of_session(&parts.headers).await
        {
            let identity = settings.authenticator.still(&identity).map_err(Refused::Unknown)?;
            return Ok(Visitor { identity, has_session: self.asks(), caller });
        }
        let identity = settings.authenticator.identify(parts).await;
        if let Err(status) = &identity
            && parts.headers.contains_key(header::AUTHORIZATION)
        {
            self.note(&caller, "GET pages", status);
        }
        Ok(Visitor { identity: identity.map_err(Refused::Unknown)?, has_session: false, caller })
    }

    async fn of_session(&self, headers: &HeaderMap) -> Option<Identity> {
        let secret = cookie::read(headers, &self.cookie())?;
        self.0.sessions.get(&secret).await
    }

    /// The name of the session's cookie. Cookies do not tell ports apart, but several farms can be on one machine.
    fn cookie(&self) -> String {
        let Settings { is_https, port, .. } = self.0.settings;
        if is_https { format!("__Host-kiln-{port}") } else { format!("kiln-{port}") }
    }

    /// Begins a session of the owner of a token. Returns its cookie.
    pub(crate) async fn log_in(&self, caller: &Caller, token: &str) -> Result<String, Status> {
        let identified = self.of_token(token).await;
        if let Err(status) = &identified {
            self.note(caller, "POST /login", status);
        }
        self.begin(identified?).await
    }

    async fn of_token(&self, token: &str) -> Result<Identity, Status> {
        let value = format!("Bearer {}", token.trim()).parse();
        let value = value.map_err(|_| Status::unauthenticated("it has characters that no token has"))?;
        let (mut call, ()) = axum::http::Request::new(()).into_parts();
        call.headers.insert(header::AUTHORIZATION, value);
        self.0.settings.authenticator.identify(&call).await
    }

    /// Begins a session with a link that works once. Returns its cookie, if the link is good.
    pub(crate) async fn open(&self, code: &str) -> Option<String> {
        let identity = self.0.settings.links.redeem(code).await?;
        self.begin(identity).await.ok()
    }

    async fn begin(&self, identity: Identity) -> Result<String, Status> {
        let began = self.0.sessions.begin(identity).await;
        let secret =
            began.map_err(|error| Status::unavailable(format!("cannot begin a session ({error}); try again")))?;
        Ok(cookie::set(&self.cookie(), &secret, self.0.settings.is_https))
    }

    /// Ends a session. Returns what removes its cookie.
    pub(crate) async fn log_out(&self, headers: &HeaderMap) -> String {
        if let Some(secret) = cookie::read(headers, &self.cookie()) {
            self.0.sessions.end(&secret).await;
        }
        cookie::remove(&self.cookie(), self.0.settings.is_https)
    }

    /// Completes when the visitor may no longer see what they are being shown.
    pub(crate) fn end(&self, identity: &Identity) -> impl Future<Output = Status> + Send + use<> {
        kiln_auth::end(identity.clone(), self.0.settings.authenticator.known())
    }

    fn note(&self, caller: &Caller, call: &str, status: &Status) {
        let Some(audit) = &self.0.settings.audit else { return };
        let (code, message) = (Code::Unauthenticated, status.message());
        let address = caller.address;
        audit.request(&Requested { call, identity: None, address, code, message, subject: "", is_change: false });
    }
}
