//! Manifests, tags and referrers.

use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;

use super::transport::body;
use super::{Access, Ask, Error, Registries};
use crate::blobs::MAX_DOCUMENT_BYTES;
use crate::digest::Digest;
use crate::manifest::{Document, media_type};
use crate::reference::{Reference, nearest};

/// All supported kinds of manifests.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                        application/vnd.docker.distribution.manifest.list.v2+json, \
                        application/vnd.docker.distribution.manifest.v2+json";
/// Maximum number of names that are searched for a similar one.
const MAX_NAMES: usize = 1000;

/// A registry's response to a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// Whether it maintains the list of referrers itself.
    pub lists_referrers: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Names {
    tags: Option<Vec<String>>,
    repositories: Option<Vec<String>>,
}

fn url(base: &str, reference: &Reference, wanted: &str) -> String {
    format!("{base}/v2/{}/manifests/{wanted}", reference.repository())
}

impl Registries {
    /// Fetches the manifest or index that a reference names.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the most similar existing name.
    pub async fn manifest(&self, reference: &Reference) -> Result<Document, Error> {
        let doing = "when it was asked for a manifest";
        let ask = Ask { repository: reference, access: Access::Pull, doing, beside: None };
        let wanted = reference.wanted();
        let response =
            self.send(&ask, |client, base| client.get(url(base, reference, &wanted)).header(ACCEPT, ACCEPTED)).await?;
        if matches!(response.status(), StatusCode::NOT_FOUND) {
            return Err(self.not_found(reference).await);
        }
        if !response.status().is_success() {
            return Err(self.refused(&ask, response).await);
        }
        let malformed = |reason: String| Error::Malformed { registry: reference.registry().to_owned(), doing, reason };
        let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = header.and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_owned();
        if !media_type::is_index(&media_type) && !media_type::is_manifest(&media_type) {
            return Err(malformed(format!("`{media_type}` is not a supported manifest type")));
        }
        let read = tokio::time::timeout(self.options().stall, body(response, MAX_DOCUMENT_BYTES as usize)).await;
        let stalled =
            |_| Error::Stalled { registry: reference.registry().to_owned(), doing, after: self.options().stall };
        let data = read.map_err(stalled)?.map_err(|error| error.into_error(reference.registry(), doing))?;
        let document = Document::new(&media_type, data);
        match reference.digest() {
            Some(digest) if digest != document.descriptor.digest => {
                Err(malformed(format!("it sent `{}` for `{digest}`", document.descriptor.digest)))
            }
            _ => Ok(document),
        }
    }

    /// The current digest of a reference; `None` if there is no such image.
    ///
    /// # Errors
    /// If the registry cannot be reached.
    pub async fn find(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        self.find_as(reference, Access::Pull).await
    }

    /// The same, with the permission to push.
    pub(crate) async fn find_to_push(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        self.find_as(reference, Access::Push).await
    }

    async fn find_as(&self, reference: &Reference, access: Access) -> Result<Option<Digest>, Error> {
        let ask = Ask { repository: reference, access, doing: "when it was asked for a tag", beside: None };
        let wanted = reference.wanted();
        let response =
            self.send(&ask, |client, base| client.head(url(base, reference, &wanted)).header(ACCEPT, ACCEPTED)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if !status.is_success() => return Err(self.refused(&ask, response).await),
            _ => {}
        }
        let header = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match header.and_then(|digest| digest.parse().ok()) {
            Some(digest) => Ok(Some(digest)),
            None => Ok(Some(self.manifest(reference).await?.descriptor.digest)),
        }
    }

    /// Puts a manifest under the reference's tag or, without one, under its digest.
    ///
    /// # Errors
    /// If the registry rejects it: a blob is missing, or pushing is not allowed.
    pub async fn put_manifest(&self, reference: &Reference, document: &Document) -> Result<Put, Error> {
        let ask =
            Ask { repository: reference, access: Access::Push, doing: "when it was sent a manifest", beside: None };
        let wanted = reference.tag().map_or_else(|| document.descriptor.digest.to_string(), str::to_owned);
        let response = self
            .send(&ask, |client, base| {
                let request = client.put(url(base, reference, &wanted));
                request.header(CONTENT_TYPE, &document.descriptor.media_type).body(document.data.clone())
            })
            .await?;
        if !response.status().is_success() {
            return Err(self.refused(&ask, response).await);
        }
        Ok(Put { lists_referrers: response.headers().contains_key("oci-subject") })
    }

    async fn not_found(&self, reference: &Reference) -> Error {
        let hint = match self.names(reference, &format!("{}/tags/list", reference.repository())).await.tags {
            Some(tags) if !tags.is_empty() => {
                let wanted = reference.wanted();
                match nearest(&wanted, tags.iter().map(String::as_str)) {
                    Some(near) => format!(": did you mean the tag `{near}`?"),
                    None => format!(": its tags are {}", listed(&tags)),
                }
            }
            _ => {
                let repositories = self.names(reference, "_catalog").await.repositories.unwrap_or_default();
                match nearest(reference.repository(), repositories.iter().map(String::as_str)) {
                    Some(near) => format!(": did you mean `{}/{near}`?", reference.registry()),
                    None => {
                        format!(": the registry `{}` has no such repository, or does not show it", reference.registry())
                    }
                }
            }
        };
        Error::NotFound { reference: reference.familiar(), hint }
    }

    /// Existing names, for a hint; empty if the registry does not list them.
    async fn names(&self, reference: &Reference, path: &str) -> Names {
        let ask =
            Ask { repository: reference, access: Access::Pull, doing: "when it was asked for names", beside: None };
        let asked = self.send(&ask, |client, base| client.get(format!("{base}/v2/{path}?n={MAX_NAMES}"))).await;
        let Ok(response) = asked else { return Names::default() };
        if !response.status().is_success() {
            return Names::default();
        }
        let read = tokio::time::timeout(self.options().stall, body(response, MAX_DOCUMENT_BYTES as usize)).await;
        read.ok().and_then(Result::ok).and_then(|data| serde_json::from_slice(&data).ok()).unwrap_or_default()
    }
}

fn listed(tags: &[String]) -> String {
    let shown: Vec<String> = tags.iter().rev().take(10).map(|tag| format!("`{tag}`")).collect();
    let more = match tags.len().saturating_sub(shown.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}
