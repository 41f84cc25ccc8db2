//! Finds the base image for a platform, wherever it is stored.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::blobs::{Blobs, Error, document};
use crate::choose::choose;
use crate::image::Base;
use crate::manifest::{Descriptor, Document, Index, Manifest, media_type};
use crate::platform::Platform;

/// Maximum depth of nested indexes.
const MAX_DEPTH: usize = 4;

/// Resolves a document to the image for `wanted`: an index to its manifest, and that to its configuration.
///
/// # Errors
/// If there is no image for the platform (the error names those that exist), or a document is invalid.
pub async fn resolve(blobs: &dyn Blobs, top: &Document, wanted: &Platform) -> Result<Base, Error> {
    let mut found = top.clone();
    for _ in 0..MAX_DEPTH {
        if media_type::is_manifest(&found.descriptor.media_type) {
            return image(blobs, top, &found.data, wanted).await;
        }
        if !media_type::is_index(&found.descriptor.media_type) {
            break;
        }
        let index: Index = read(blobs, "an index", &found.data)?;
        let next = match &index.manifests[..] {
            [only] if media_type::is_index(&only.media_type) => only.clone(),
            _ => choose(&index, wanted).map_err(|there| none_for(blobs, wanted, there))?.clone(),
        };
        found = Document { data: document(blobs, &next).await?, descriptor: next };
    }
    let reason = format!("it is `{}`; expected an image or an index of images", found.descriptor.media_type);
    Err(Error::NoImage { place: blobs.place(), reason })
}

/// The same for a layout, whose index is only a list of its contents: a single image is identified by its own digest.
///
/// # Errors
/// As for [`resolve`].
pub async fn resolve_layout(blobs: &dyn Blobs, top: &Document, wanted: &Platform) -> Result<Base, Error> {
    if media_type::is_index(&top.descriptor.media_type) {
        let index: Index = read(blobs, "`index.json`", &top.data)?;
        if let [only] = &index.manifests[..] {
            let found = Document { data: document(blobs, only).await?, descriptor: only.clone() };
            return resolve(blobs, &found, wanted).await;
        }
    }
    resolve(blobs, top, wanted).await
}

fn none_for(blobs: &dyn Blobs, wanted: &Platform, there: String) -> Error {
    Error::Platform { place: blobs.place(), wanted: wanted.to_string(), there }
}

fn read<T: serde::de::DeserializeOwned>(blobs: &dyn Blobs, what: &str, data: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(data)
        .map_err(|error| Error::NoImage { place: blobs.place(), reason: format!("{what} is malformed: {error}") })
}

async fn image(blobs: &dyn Blobs, top: &Document, data: &Bytes, wanted: &Platform) -> Result<Base, Error> {
    let no_image = |reason: String| Error::NoImage { place: blobs.place(), reason };
    let manifest: Manifest = read(blobs, "its manifest", data)?;
    if !matches!(manifest.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
        return Err(no_image(format!("it is an artifact of type `{}`", manifest.config.media_type)));
    }
    let config: Map<String, Value> = read(blobs, "its configuration", &document(blobs, &manifest.config).await?)?;
    let word = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let variant = Some(word("variant")).filter(|variant| !variant.is_empty());
    let is = Platform { architecture: word("architecture"), os: word("os"), variant };
    if !is.fits(wanted) {
        return Err(none_for(blobs, wanted, format!("`{is}`")));
    }
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        let media_type = media_type::of_layer(&layer.media_type).ok_or_else(|| {
            no_image(format!("it has a layer of type `{}`, which may not be distributed", layer.media_type))
        })?;
        layers.push(Descriptor::new(media_type, layer.digest, layer.size));
    }
    let diff_ids = config.get("rootfs").and_then(|rootfs| rootfs["diff_ids"].as_array()).map_or(0, Vec::len);
    if diff_ids != layers.len() {
        return Err(no_image(format!("its manifest has {} layers, its configuration {diff_ids}", layers.len())));
    }
    Ok(Base { digest: top.descriptor.digest, config, layers })
}
