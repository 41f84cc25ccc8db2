//! What refers to a manifest: the registry's list, or the one under a tag if it has none.
//!
//! Source: OCI distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema".

use reqwest::StatusCode;
use reqwest::header::LINK;

use super::transport::body;
use super::{Access, Ask, Error, Registries};
use crate::blobs::MAX_DOCUMENT_BYTES;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, Index};
use crate::reference::Reference;

const DOING: &str = "when it was asked for referrers";
/// Maximum number of pages of a list.
const MAX_PAGES: usize = 20;

impl Registries {
    /// The manifests that refer to `subject`, whatever they are.
    ///
    /// # Errors
    /// If the registry cannot be reached, or its list is malformed.
    pub async fn referrers(&self, repository: &Reference, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let ask = Ask { repository, access: Access::Pull, doing: DOING, beside: None };
        let mut path = format!("/v2/{}/referrers/{subject}", repository.repository());
        let mut found = Vec::new();
        for page in 0..MAX_PAGES {
            let response = self.send(&ask, |client, base| client.get(format!("{base}{path}"))).await?;
            if page == 0 && response.status() == StatusCode::NOT_FOUND {
                return self.under_tag(repository, subject).await;
            }
            if !response.status().is_success() {
                return Err(self.refused(&ask, response).await);
            }
            let next = response.headers().get(LINK).and_then(|link| next(link.to_str().ok()?));
            let read = tokio::time::timeout(self.options().stall, body(response, MAX_DOCUMENT_BYTES as usize)).await;
            let (registry, after) = (repository.registry(), self.options().stall);
            let stalled = |_| Error::Stalled { registry: registry.to_owned(), doing: DOING, after };
            let data = read.map_err(stalled)?.map_err(|error| error.into_error(registry, DOING))?;
            found.extend(self.parse(repository, &data)?);
            match next {
                Some(next) => path = next,
                None => break,
            }
        }
        Ok(found)
    }

    async fn under_tag(&self, repository: &Reference, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let Ok(at) = repository.at_tag(&tag(subject)) else { return Ok(Vec::new()) };
        if self.find(&at).await?.is_none() {
            return Ok(Vec::new());
        }
        self.parse(repository, &self.manifest(&at).await?.data)
    }

    fn parse(&self, repository: &Reference, data: &[u8]) -> Result<Vec<Descriptor>, Error> {
        let malformed = |error: serde_json::Error| Error::Malformed {
            registry: repository.registry().to_owned(),
            doing: DOING,
            reason: error.to_string(),
        };
        Ok(serde_json::from_slice::<Index>(data).map_err(malformed)?.manifests)
    }
}

/// The tag that lists the referrers of `subject` if the registry does not list them itself.
pub(crate) fn tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// The path of the next page. It is the registry's own, whatever host it names.
fn next(link: &str) -> Option<String> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let path = target.find("/v2/").and_then(|at| target.get(at..))?;
    parameters.contains("rel=\"next\"").then(|| path.to_owned())
}

impl Registries {
    /// Adds referrers to the list under the tag that stands for one in registries without.
    pub(crate) async fn list_referrers(
        &self,
        repository: &Reference,
        subject: &Digest,
        manifests: &[Descriptor],
    ) -> Result<(), Error> {
        let Ok(at) = repository.at_tag(&tag(subject)) else { return Ok(()) };
        let mut index = match self.find_to_push(&at).await? {
            None => Index::new(Vec::new()),
            Some(_) => {
                let known = self.manifest(&at).await?;
                serde_json::from_slice(&known.data).unwrap_or_else(|_| Index::new(Vec::new()))
            }
        };
        let before = index.manifests.len();
        for manifest in manifests {
            if !index.manifests.iter().any(|known| known.digest == manifest.digest) {
                index.manifests.push(manifest.clone());
            }
        }
        if index.manifests.len() > before {
            self.put_manifest(&at, &Document::from(&index)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_at_the_same_registry() {
        let path = Some("/v2/a/referrers/sha256:00?n=1".to_owned());
        assert_eq!(next("</v2/a/referrers/sha256:00?n=1>; rel=\"next\""), path);
        assert_eq!(next("<https://evil.example/v2/a/referrers/sha256:00?n=1>; rel=\"next\""), path);
        assert_eq!(next("</v2/a>; rel=\"prev\""), None);
        assert_eq!(next("nonsense"), None);
    }
}
