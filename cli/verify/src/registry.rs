//! Images and artifacts in a registry, with the bundles that refer to them.

use futures::StreamExt;
use kiln_images::blobs::Blobs;
use kiln_images::digest::Digest;
use kiln_images::manifest::{Descriptor, Document, Index, Manifest, media_type};
use kiln_images::reference::Reference;
use kiln_images::referrer::kind;
use kiln_images::registry::{self, Registries, Repository};

use crate::Error;
use crate::disk::{is_about_another, target};
use crate::evidence::{Bundle, Evidence, Item, Target};

/// The title of a layer that is a file.
const TITLE: &str = "org.opencontainers.image.title";
/// Maximum number of manifests in an index, and of bundles about one.
const MOST: usize = 200;

/// Whether a name is that of an image in a registry: it begins with a host.
pub fn is_image(text: &str) -> bool {
    let host = text.split_once('/').map(|(host, _)| host).unwrap_or_default();
    host == "localhost" || host.contains(['.', ':']) && !host.starts_with('.')
}

/// What a reference stands for: an image for each platform, or an artifact of files. With `content`, every blob is fetched and hashed.
///
/// # Errors
/// If the registry cannot be reached, has no such image, or sends something else than its digest says.
pub async fn in_registry(registries: &Registries, reference: &Reference, content: bool) -> Result<Evidence, Error> {
    let top = registries.manifest(reference).await.map_err(Box::new)?;
    let shown = format!("{}@{}", reference.familiar().split('@').next().unwrap_or_default(), top.descriptor.digest);
    let mut evidence = Evidence { what: shown, ..Evidence::default() };
    let documents = if media_type::is_index(&top.descriptor.media_type) {
        // An index that the farm did not see is no more than its images are.
        evidence.bundles = bundles(registries, reference, &top.descriptor.digest).await?;
        if !evidence.bundles.is_empty() {
            let index = Target { name: "index".to_owned(), is_index: true, ..target(&top.descriptor) };
            evidence.targets.push(index);
        }
        platforms(registries, reference, &top).await?
    } else {
        vec![top]
    };
    for document in documents {
        let manifest: Manifest = parse(reference, &document.data)?;
        evidence.targets.push(described(&document.descriptor, &manifest));
        evidence.bundles.extend(bundles(registries, reference, &document.descriptor.digest).await?);
        for part in manifest.layers.iter().chain([&manifest.config]).filter(|_| content) {
            read(registries, reference, part, |_| ()).await?;
        }
    }
    Ok(evidence)
}

fn parse<T: serde::de::DeserializeOwned>(reference: &Reference, data: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(data).map_err(|error| malformed(reference, error.to_string()))
}

fn malformed(reference: &Reference, reason: String) -> Error {
    let registry = reference.registry().to_owned();
    Error::Registry(Box::new(registry::Error::Malformed { registry, doing: "when it was asked for an image", reason }))
}

/// The images that an index lists.
async fn platforms(registries: &Registries, reference: &Reference, top: &Document) -> Result<Vec<Document>, Error> {
    let index: Index = parse(reference, &top.data)?;
    let images: Vec<Descriptor> = index.manifests.into_iter().filter(|one| !is_about_another(one)).collect();
    if images.len() > MOST {
        return Err(malformed(reference, format!("the index has more than {MOST} images")));
    }
    let mut documents = Vec::new();
    for descriptor in images {
        let mut document = registries.manifest(&reference.at_digest(descriptor.digest)).await.map_err(Box::new)?;
        document.descriptor.platform = descriptor.platform;
        documents.push(document);
    }
    Ok(documents)
}

/// What statements are about: an image's manifest, or the files of an artifact.
fn described(descriptor: &Descriptor, manifest: &Manifest) -> Target {
    let mut described = target(descriptor);
    let file = |layer: &Descriptor| layer.annotations.get(TITLE).map(|name| Item::sha256(name, layer.digest.hex()));
    let files: Option<Vec<Item>> = manifest.layers.iter().map(file).collect();
    if let Some(files) = files.filter(|files| manifest.artifact_type.is_some() && !files.is_empty()) {
        described.items = files;
        described.is_whole = true;
    }
    described
}

/// The bundles that refer to a manifest.
async fn bundles(registries: &Registries, reference: &Reference, subject: &Digest) -> Result<Vec<Bundle>, Error> {
    let found = registries.referrers(reference, subject).await.map_err(Box::new)?;
    let is_bundle = |one: &Descriptor| one.artifact_type.as_deref().is_none_or(|kind| kind == kind::BUNDLE);
    let mut bundles = Vec::new();
    for descriptor in found.into_iter().filter(is_bundle).take(MOST) {
        let at = reference.at_digest(descriptor.digest);
        let document = registries.manifest(&at).await.map_err(Box::new)?;
        let manifest: Manifest = parse(reference, &document.data)?;
        for layer in manifest.layers.iter().filter(|layer| layer.media_type == kind::BUNDLE) {
            if layer.size > kiln_attest::MAX_BYTES as u64 {
                return Err(malformed(reference, format!("the bundle `{}` has {} bytes", layer.digest, layer.size)));
            }
            let mut data = Vec::new();
            read(registries, reference, layer, |piece| data.extend_from_slice(piece)).await?;
            let name = layer.annotations.get(TITLE).cloned().unwrap_or_else(|| descriptor.digest.to_string());
            bundles.push(Bundle { name, data });
        }
    }
    Ok(bundles)
}

/// Reads a blob, whose content is what its digest says.
async fn read(
    registries: &Registries,
    reference: &Reference,
    descriptor: &Descriptor,
    mut with: impl FnMut(&[u8]),
) -> Result<(), Error> {
    let repository = Repository { registries: registries.clone(), reference: reference.clone() };
    let mut hasher = kiln_images::digest::Hasher::default();
    let failed = |error: kiln_images::blobs::Error| Error::Registry(Box::new(registry::Error::Source(Box::new(error))));
    let mut pieces = repository.open(descriptor).await.map_err(failed)?;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(failed)?;
        hasher.update(&piece);
        if hasher.size() > descriptor.size {
            return Err(malformed(reference, format!("`{}` is larger than its descriptor says", descriptor.digest)));
        }
        with(&piece);
    }
    let found = hasher.finish();
    if found != descriptor.digest {
        return Err(malformed(reference, format!("it sent `{found}` for `{}`", descriptor.digest)));
    }
    Ok(())
}
