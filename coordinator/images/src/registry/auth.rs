//! Answers a registry's challenge: with name and password, or with a token for one repository.
//!
//! Source: distribution's "Token Authentication Specification" and "Docker Registry v2 authentication using OAuth2".

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::challenge::Challenge;
use super::{Access, Ask, Error, Login, Registries, transport};

/// The client name used to exchange a token.
const CLIENT: &str = "kiln";
/// Maximum size of a token response.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The value of the `Authorization` header.
#[derive(Clone)]
pub(super) struct Authorization(HeaderValue);

impl Authorization {
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// `None` if the value is not valid in a header.
    fn new(words: String) -> Option<Self> {
        let mut value = HeaderValue::try_from(words).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    fn basic(login: &Login) -> Option<Self> {
        Self::new(format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.secret))))
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization")
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The key under which an authorization is cached.
pub(super) fn key(ask: &Ask<'_>) -> (String, String, Access) {
    let beside = ask.beside.map_or(String::new(), |beside| format!(" {}", beside.repository()));
    (ask.repository.registry().to_owned(), format!("{}{beside}", ask.repository.repository()), ask.access)
}

/// The scopes that a request needs. The registry's challenge names fewer if a blob is mounted from another repository.
fn scopes(ask: &Ask<'_>) -> Vec<String> {
    let own = format!("repository:{}:{}", ask.repository.repository(), ask.access.actions());
    let beside = ask.beside.map(|beside| format!("repository:{}:pull", beside.repository()));
    std::iter::once(own).chain(beside).collect()
}

impl Registries {
    pub(super) async fn authorize(
        &self,
        ask: &Ask<'_>,
        host: &transport::Host,
        challenge: &Challenge,
    ) -> Result<Authorization, Error> {
        let registry = ask.repository.registry().to_owned();
        let login = self.inner.credentials.login(&registry).await?;
        match challenge {
            Challenge::Basic => match login.as_ref().and_then(Authorization::basic) {
                Some(authorization) => Ok(authorization),
                None => {
                    let repository = ask.repository.repository().to_owned();
                    Err(Error::NoCredentials { registry, repository })
                }
            },
            Challenge::Bearer { realm, service, scope } => {
                let mut scopes = scopes(ask);
                if scope.starts_with("registry:") {
                    scopes = vec![scope.clone()];
                }
                self.token(ask, host, realm, service, &scopes, login).await
            }
        }
    }

    async fn token(
        &self,
        ask: &Ask<'_>,
        host: &transport::Host,
        realm: &str,
        service: &str,
        scopes: &[String],
        login: Option<Login>,
    ) -> Result<Authorization, Error> {
        let registry = ask.repository.registry().to_owned();
        let malformed =
            |reason: String| Error::Malformed { registry: registry.clone(), doing: "asked for a token", reason };
        let mut url = url::Url::parse(realm).map_err(|error| malformed(format!("its realm `{realm}`: {error}")))?;
        // A registry on HTTPS must not make the client send a password in the clear.
        if url.scheme() != "https" && host.base.starts_with("https:") {
            return Err(malformed(format!("its realm `{realm}` is not HTTPS")));
        }
        if !host.allows_realm(&url) {
            let allow = url.host_str().unwrap_or_default().to_owned();
            return Err(Error::NotAllowed {
                registry,
                reason: format!("its tokens are issued by another host, `{allow}`"),
                allow,
            });
        }
        let request = match &login {
            Some(login) if login.is_token => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("service", service)
                    .append_pair("client_id", CLIENT)
                    .append_pair("scope", &scopes.join(" "))
                    .append_pair("refresh_token", &login.secret);
                let kind = "application/x-www-form-urlencoded";
                host.client().post(url).header(reqwest::header::CONTENT_TYPE, kind).body(form.finish())
            }
            _ => {
                {
                    let mut query = url.query_pairs_mut();
                    query.append_pair("service", service);
                    for scope in scopes {
                        query.append_pair("scope", scope);
                    }
                }
                let request = host.client().get(url);
                match &login {
                    Some(login) => request.basic_auth(&login.user, Some(&login.secret)),
                    None => request,
                }
            }
        };
        let stall = self.inner.options.stall;
        let request = request.timeout(stall).build().map_err(|error| transport::failed(&registry, &error))?;
        let response = host.execute_at_home(request).await?;
        match (response.status(), login) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST, Some(login)) => {
                return Err(Error::Credentials { registry, user: login.user, from: login.from });
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => {
                return Err(Error::NoCredentials { registry, repository: ask.repository.repository().to_owned() });
            }
            (status, _) if !status.is_success() => {
                let (status, detail) = (status.as_u16(), self.detail(&registry, response).await);
                return Err(Error::Failing { registry, doing: "when it was asked for a token", status, detail });
            }
            _ => {}
        }
        let text = transport::body(response, MAX_ANSWER_BYTES).await;
        let text = text.map_err(|error| error.into_error(&registry, "when it was asked for a token"))?;
        let answer: Answer = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        match [answer.token, answer.access_token].into_iter().find(|token| !token.is_empty()) {
            Some(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Authorization::new(format!("Bearer {token}"))
            }
            _ => None,
        }
        .ok_or_else(|| malformed("it contains no token".to_owned()))
    }
}
