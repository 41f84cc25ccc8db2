//! A repository that accepts files by HTTP PUT, like raw repositories in Nexus and Artifactory, and WebDAV servers.
//!
//! Source: RFC 9110, sections 9.3.4 (PUT) and 13.1.2 (If-None-Match). Plain HTTP is only used for this machine and for
//! hosts listed as insecure.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_images::registry::{is_this_machine, words};
use reqwest::header::{CONTENT_LENGTH, IF_NONE_MATCH};
use reqwest::{Body, Client, RequestBuilder, Response, StatusCode, Url};

use super::{Content, Refused, Store};

const CONNECT: Duration = Duration::from_secs(10);
/// Maximum pause within a response.
const SILENCE: Duration = Duration::from_secs(60);
/// The complete value of `Authorization`, for credentials other than user and password in the URL.
const AUTHORIZATION: &str = "KILN_PUSH_AUTHORIZATION";

/// Whether a text is a URL of this kind.
pub fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The URL without secrets.
pub(super) fn without_secrets(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if url.password().is_some() || !url.username().is_empty() => {
            let _ = (url.set_username(""), url.set_password(None));
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

#[derive(Debug)]
pub(super) struct Repository {
    shown: String,
    base: Url,
    user: Option<(String, String)>,
    client: Client,
}

impl Repository {
    pub(super) fn open(text: &str, insecure: &[String]) -> Result<Self, Refused> {
        let shown = without_secrets(text);
        let refused = |reason: String| Refused::Address { place: shown.clone(), reason };
        let mut base = Url::parse(text).map_err(|error| refused(error.to_string()))?;
        let host = base.host_str().ok_or_else(|| refused("it has no host".to_owned()))?.to_owned();
        let with_port = base.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let is_named = insecure.iter().any(|one| *one == host || *one == with_port);
        if base.scheme() == "http" && !is_named && !is_this_machine(&host) {
            let reason = format!(
                "plain HTTP would expose the data and the password to everyone on the network; use `https://`, or allow it with \
                 `--insecure-registry {with_port}`"
            );
            return Err(refused(reason));
        }
        let decode = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
        let user = (!base.username().is_empty())
            .then(|| (decode(base.username()), decode(base.password().unwrap_or_default())));
        let _ = (base.set_username(""), base.set_password(None));
        // The client would panic if several TLS providers are linked; a provider that was installed earlier is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self { shown, base, user, client })
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path.split('/'));
        }
        url
    }

    async fn send(&self, path: &str, request: RequestBuilder) -> Result<Response, Refused> {
        let request = match (&self.user, std::env::var(AUTHORIZATION)) {
            (Some((user, password)), _) => request.basic_auth(user, Some(password)),
            (None, Ok(value)) => request.header(reqwest::header::AUTHORIZATION, value),
            (None, Err(_)) => request,
        };
        let (place, path) = (self.shown.clone(), path.to_owned());
        let response = request.send().await.map_err(|error| Refused::Failed {
            place: place.clone(),
            path: path.clone(),
            reason: words(&error),
        })?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let reason = format!(
                    "{}; give a user and password that may write there in the URL, or a header's value in `{AUTHORIZATION}`",
                    response.status()
                );
                Err(Refused::Denied { place, path, reason })
            }
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Err(Refused::Taken { place, path }),
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(response),
            StatusCode::INSUFFICIENT_STORAGE => {
                Err(Refused::Failed { place, path, reason: "it has no space left (507)".to_owned() })
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Refused::Failed { place, path, reason: status.to_string() })
            }
            status => Err(Refused::Denied { place, path, reason: format!("it responded with {status}") }),
        }
    }

    async fn put_body(&self, path: &str, size: u64, body: Body, only_new: bool) -> Result<(), Refused> {
        let mut request = self.client.put(self.url(path)).header(CONTENT_LENGTH, size).body(body);
        if only_new {
            request = request.header(IF_NONE_MATCH, "*");
        }
        let response = self.send(path, request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            let reason = "it responded to PUT with 404; check that this is a repository that accepts files".to_owned();
            return Err(Refused::Denied { place: self.shown.clone(), path: path.to_owned(), reason });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Repository {
    async fn size(&self, path: &str) -> Result<Option<u64>, Refused> {
        let response = self.send(path, self.client.head(self.url(path))).await?;
        let size = || response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        Ok(if response.status().is_success() { size() } else { None })
    }

    async fn read(&self, path: &str) -> Result<Option<Bytes>, Refused> {
        let response = self.send(path, self.client.get(self.url(path))).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let failed = |error: reqwest::Error| Refused::Failed {
            place: self.shown.clone(),
            path: path.to_owned(),
            reason: words(&error),
        };
        response.bytes().await.map(Some).map_err(failed)
    }

    async fn put(&self, path: &str, content: &Content<'_>) -> Result<(), Refused> {
        let pieces = content.open().await.map_err(|error| Refused::Failed {
            place: self.shown.clone(),
            path: path.to_owned(),
            reason: format!("the farm: {error}"),
        })?;
        self.put_body(path, content.size(), Body::wrap_stream(pieces), false).await
    }

    async fn create(&self, path: &str, data: Bytes) -> Result<(), Refused> {
        self.put_body(path, data.len() as u64, Body::from(data), true).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_where_it_is_named() {
        let open = |url: &str, insecure: &[&str]| {
            let insecure: Vec<String> = insecure.iter().map(|one| (*one).to_owned()).collect();
            Repository::open(url, &insecure).map(|repository| repository.shown)
        };
        assert!(open("http://127.0.0.1:80/raw", &[]).is_ok() && open("https://nexus.example/raw", &[]).is_ok());
        let words = open("http://u:secret@nexus.example:8081/raw", &[]).unwrap_err().to_string();
        assert!(words.contains("--insecure-registry nexus.example:8081") && !words.contains("secret"), "{words}");
        let shown = open("http://u:secret@nexus.example:8081/raw", &["nexus.example:8081"]).unwrap();
        assert_eq!(shown, "http://nexus.example:8081/raw");
    }
}
