//! Pushes an artifact to a registry: an image unchanged, anything else as an OCI artifact with its files as layers.
//!
//! Blobs are sent straight from the farm to the registry, and only those that the registry lacks are fetched.

use kiln_images::blobs::InMemory;
use kiln_images::image::Image;
use kiln_images::manifest::{Descriptor, Document, Index, Manifest};
use kiln_images::platform::Platform;
use kiln_images::push::{Push, Pushed};
use kiln_images::reference::Reference;
use kiln_images::referrer::Referrer;
use kiln_images::registry::Registries;
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1;

use super::stored::{OnFarm, Stored};
use super::{Delivered, Error};
use crate::farm::Farm;

/// The type of a binary or an archive in a registry.
const ARTIFACT: &str = "application/vnd.kiln.artifact.v1";
const FILE: &str = "application/octet-stream";
const TITLE: &str = "org.opencontainers.image.title";
const BASE: &str = "org.opencontainers.image.base.name";

/// Pushes one artifact, for all of its platforms.
pub(super) async fn push(
    farm: &Farm,
    registries: &Registries,
    to: &Reference,
    stored: &[Stored],
    over: bool,
) -> Result<Delivered, Error> {
    let failed = |source| Error::Push { reference: to.familiar(), source: Box::new(source) };
    let mut push = match stored.iter().all(|one| one.artifact.kind == "image") {
        true => images(farm, to, stored).await?,
        false => {
            let push = files(to, stored).await?;
            let mut empty = InMemory::default();
            empty.add(&Document::empty());
            registries.upload(to, &Document::empty().descriptor, &empty, None).await.map_err(failed)?;
            push
        }
    };
    push.over = over;
    let outcome = push.run(registries, &OnFarm(stored)).await.map_err(failed)?;
    let bytes = (outcome.sent.1, outcome.mounted.1 + outcome.present.1);
    Ok(Delivered {
        name: stored.first().map(|one| one.artifact.name.clone()).unwrap_or_default(),
        how: "pushed",
        reference: to.familiar(),
        digest: push.top.descriptor.digest.to_string(),
        bytes,
    })
}

async fn images(farm: &Farm, to: &Reference, stored: &[Stored]) -> Result<Push, Error> {
    let mut all = Vec::new();
    for one in stored {
        let referrers = one.referrers().await?;
        all.extend(one.images().await?.into_iter().map(|image| (image, referrers.clone())));
    }
    let beside = all.iter().find_map(|(image, _)| base_of(image));
    let mut push = Push { beside, ..Push::of_images(to.clone(), all) };
    if stored.len() > 1 {
        // Those that an earlier build made just so are recorded as that one's.
        for one in stored {
            if push.about_top.is_empty() {
                push.about_top.extend(about(farm, &one.artifact, &push.top).await);
            }
        }
    }
    Ok(push)
}

/// What the farm signs about the index of a build's images; nothing, if it signs nothing or lists others.
async fn about(farm: &Farm, artifact: &v1::Artifact, top: &Document) -> Option<Referrer> {
    let request = v1::SignIndexRequest { build: artifact.build.clone(), artifact: artifact.name.clone() };
    let signed = match farm.artifacts().sign_index(request).await {
        Ok(signed) => signed.into_inner(),
        Err(status) => {
            tracing::info!(reason = status.message(), "the index is not signed");
            return None;
        }
    };
    let created = artifact.created.map(|at| kiln_proto::clock::rfc3339(&at)).unwrap_or_default();
    let title = format!("{}.index.sigstore.json", artifact.name);
    let is_same = signed.index == top.descriptor.digest.hex();
    is_same.then(|| Referrer::bundle(&title, signed.bundle.into(), &signed.predicate_type, &created))
}

/// The repository of the image's base.
fn base_of(image: &Image) -> Option<Reference> {
    let manifest: Manifest = serde_json::from_slice(&image.manifest.data).ok()?;
    manifest.annotations.get(BASE)?.parse().ok()
}

async fn files(to: &Reference, stored: &[Stored]) -> Result<Push, Error> {
    let mut manifests = Vec::new();
    for one in stored {
        let mut layers = Vec::new();
        for (path, digest) in one.files() {
            if digest.function != DigestFunction::Sha256 {
                return Err(one.malformed("its files are not named by SHA-256, as a registry requires"));
            }
            let mut layer = Descriptor::new(FILE, digest.hash.into(), digest.size);
            layer.annotations.insert(TITLE.to_owned(), path.to_owned());
            layers.push(layer);
        }
        let mut manifest = Manifest::new(Document::empty().descriptor, layers);
        manifest.artifact_type = Some(ARTIFACT.to_owned());
        let artifact = &one.artifact;
        let said = [
            ("org.opencontainers.image.title", &artifact.name),
            ("org.opencontainers.image.version", &artifact.version),
            ("org.opencontainers.image.revision", &artifact.commit),
            ("build.kiln.artifact.id", &artifact.id),
            ("build.kiln.artifact.kind", &artifact.kind),
        ];
        let said = said.into_iter().filter(|(_, value)| !value.is_empty());
        manifest.annotations = said.map(|(name, value)| (name.to_owned(), value.clone())).collect();
        let mut manifest = Document::from(&manifest);
        manifest.descriptor.platform = artifact
            .platform
            .split_once('/')
            .map(|(os, architecture)| Platform { os: os.to_owned(), ..Platform::linux(architecture) });
        manifests.push(Pushed { manifest, referrers: one.referrers().await? });
    }
    let top = match &manifests[..] {
        [only] => only.manifest.clone(),
        several => Document::from(&Index::new(several.iter().map(|one| one.manifest.descriptor.clone()).collect())),
    };
    Ok(Push { to: to.clone(), manifests, top, about_top: Vec::new(), beside: None, over: false })
}
