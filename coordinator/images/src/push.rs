//! Pushes an image or another artifact to a registry: its blobs and manifests first, the tag last.
//!
//! Invariant: an interrupted push leaves no tag, and a repeated one continues with what is missing. An existing tag is
//! only moved on request.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};

use crate::blobs::{Blobs, InMemory};
use crate::digest::Digest;
use crate::image::Image;
use crate::layout;
use crate::manifest::{Descriptor, Document, Manifest};
use crate::reference::Reference;
use crate::referrer::{self, Referrer};
use crate::registry::{Error, Registries, Uploaded};

/// Maximum concurrent transfers.
const CONCURRENCY: usize = 4;

/// A manifest with its referrers.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The manifest.
    pub manifest: Document,
    /// Documents that refer to it.
    pub referrers: Vec<Referrer>,
}

/// A push operation.
#[derive(Debug, Clone)]
pub struct Push {
    /// The destination; its tag will refer to `top`.
    pub to: Reference,
    /// The manifests, one per platform.
    pub manifests: Vec<Pushed>,
    /// The document for the tag: the only manifest, or an index.
    pub top: Document,
    /// Documents that refer to an index.
    pub about_top: Vec<Referrer>,
    /// A repository that may have some of the blobs, such as the base's.
    pub beside: Option<Reference>,
    /// Whether a tag that refers to another image may be moved.
    pub over: bool,
}

/// The result of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Whether the tag referred to this image already, so that nothing was sent.
    pub was_there: bool,
    /// Number and bytes of the blobs that were sent.
    pub sent: (u64, u64),
    /// Number and bytes of the blobs that the registry mounted from another repository.
    pub mounted: (u64, u64),
    /// Number and bytes of the blobs that were already there.
    pub present: (u64, u64),
}

impl Outcome {
    /// Counts a blob. Its size is what a manifest claims, which nobody has checked of one that was there already.
    fn add(&mut self, how: Uploaded, size: u64) {
        let count = match how {
            Uploaded::Present => &mut self.present,
            Uploaded::Mounted => &mut self.mounted,
            Uploaded::Sent => &mut self.sent,
        };
        *count = (count.0.saturating_add(1), count.1.saturating_add(size));
    }
}

impl Push {
    /// A push of the images of one name, one per platform.
    pub fn of_images(to: Reference, images: Vec<(Image, Vec<Referrer>)>) -> Self {
        let top = layout::top(&images.iter().map(|(image, _)| image.clone()).collect::<Vec<_>>());
        let manifests =
            images.into_iter().map(|(image, referrers)| Pushed { manifest: image.manifest, referrers }).collect();
        Self { to, manifests, top, about_top: Vec::new(), beside: None, over: false }
    }

    /// Runs the push. `source` has the blobs, including configurations; those that the registry already has are not read.
    ///
    /// # Errors
    /// [`Error::Taken`] if the tag refers to another image and may not be moved; anything that the registry rejects.
    pub async fn run(&self, registries: &Registries, source: &dyn Blobs) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        if self.to.tag().is_some()
            && let Some(existing) = registries.find_to_push(&self.to).await?
        {
            let offered = self.top.descriptor.digest;
            if existing == offered {
                return Ok(Outcome { was_there: true, ..outcome });
            }
            if !self.over {
                return Err(Error::Taken { reference: self.to.familiar(), existing, offered });
            }
        }
        self.blobs(registries, source, &mut outcome).await?;
        for pushed in &self.manifests {
            self.put(registries, &pushed.manifest).await?;
            self.referrers(registries, pushed).await?;
        }
        if !self.about_top.is_empty() {
            self.put(registries, &self.top).await?;
            let top = Pushed { manifest: self.top.clone(), referrers: self.about_top.clone() };
            self.referrers(registries, &top).await?;
        }
        registries.put_manifest(&self.to, &self.top).await?;
        Ok(outcome)
    }

    async fn put(&self, registries: &Registries, manifest: &Document) -> Result<bool, Error> {
        let at = self.to.at_digest(manifest.descriptor.digest);
        Ok(registries.put_manifest(&at, manifest).await?.lists_referrers)
    }

    /// Uploads all blobs that the manifests refer to, each once.
    async fn blobs(&self, registries: &Registries, source: &dyn Blobs, outcome: &mut Outcome) -> Result<(), Error> {
        let mut wanted: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        for pushed in &self.manifests {
            let manifest: Manifest =
                serde_json::from_slice(&pushed.manifest.data).map_err(|error| Error::Malformed {
                    registry: self.to.registry().to_owned(),
                    doing: "before anything was sent",
                    reason: error.to_string(),
                })?;
            wanted.extend(manifest.layers.into_iter().chain([manifest.config]).map(|one| (one.digest, one)));
        }
        let uploads = wanted.values().map(|descriptor| async move {
            let done = registries.upload(&self.to, descriptor, source, self.beside.as_ref()).await?;
            Ok::<_, Error>((done, descriptor.size))
        });
        let uploads: Vec<_> = uploads.collect();
        let done: Vec<(Uploaded, u64)> = stream::iter(uploads).buffer_unordered(CONCURRENCY).try_collect().await?;
        for (how, size) in done {
            outcome.add(how, size);
        }
        Ok(())
    }

    async fn referrers(&self, registries: &Registries, pushed: &Pushed) -> Result<(), Error> {
        let subject = &pushed.manifest.descriptor;
        let mut listed = Vec::new();
        for referrer in &pushed.referrers {
            let mut source = InMemory::default();
            for document in [&Document::empty(), &referrer.content] {
                source.add(document);
                registries.upload(&self.to, &document.descriptor, &source, None).await?;
            }
            let manifest = referrer.manifest(subject);
            if !self.put(registries, &manifest).await? {
                listed.push(manifest.descriptor);
            }
        }
        if !listed.is_empty() {
            registries.list_referrers(&self.to, &subject.digest, &listed).await?;
        }
        let envelopes: Vec<&Document> = pushed.referrers.iter().filter_map(|one| one.envelope.as_ref()).collect();
        if envelopes.is_empty() { Ok(()) } else { self.attach(registries, &subject.digest, &envelopes).await }
    }

    /// Puts envelopes where Cosign before version 3 looks for them.
    async fn attach(&self, registries: &Registries, subject: &Digest, envelopes: &[&Document]) -> Result<(), Error> {
        let Ok(at) = self.to.at_tag(&referrer::attachments(subject)) else { return Ok(()) };
        let before = match registries.find_to_push(&at).await? {
            None => None,
            Some(_) => serde_json::from_slice(&registries.manifest(&at).await?.data).ok(),
        };
        let (manifest, config) = referrer::attached(envelopes, before);
        let mut source = InMemory::default();
        for document in envelopes.iter().copied().chain([&config]) {
            source.add(document);
            registries.upload(&self.to, &document.descriptor, &source, None).await?;
        }
        registries.put_manifest(&at, &manifest).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_sizes_are_summed_up_to_the_largest_number() {
        let mut outcome = Outcome::default();
        outcome.add(Uploaded::Present, u64::MAX);
        outcome.add(Uploaded::Present, 1);
        assert_eq!(outcome.present, (2, u64::MAX));
    }
}
