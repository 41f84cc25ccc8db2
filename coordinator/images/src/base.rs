//! Finds the base image for a platform, wherever it is stored.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::blobs::{Blobs, Error, document};
use crate::choose::choose;
use crate::image::Base;
use crate::layout::REF_NAME;
use crate::manifest::{Descriptor, Document, Index, Manifest, media_type};
use crate::platform::{Others, Platform};

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

/// Which image of a layout is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Which<'a> {
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Which<'a> {
    /// Reads `PATH[:TAG][@DIGEST]`: the path, and what is meant of the layout there.
    pub fn read(text: &'a str) -> (&'a str, Self) {
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name, None),
        };
        (path, Self { tag, digest })
    }

    /// What an index lists under that name: what has the digest, or else the tag. Without either, that is `latest`, or the only one.
    fn of(self, index: &Index) -> Result<Option<&Descriptor>, String> {
        let all = &index.manifests;
        let tag = |one: &Descriptor| {
            let name = one.annotations.get(REF_NAME)?;
            Some(name.rsplit_once(':').map_or(name.as_str(), |(_, tag)| tag).to_owned())
        };
        let found = match (self.digest, self.tag) {
            (Some(digest), _) => all.iter().find(|one| one.digest.to_string() == digest),
            (None, wanted) => {
                let wanted = wanted.unwrap_or("latest");
                all.iter().find(|one| tag(one).is_some_and(|tag| tag == wanted))
            }
        };
        match (found, self, &all[..]) {
            (Some(found), ..) => Ok(Some(found)),
            (None, Self { digest: None, .. }, [only]) => Ok(Some(only)),
            (None, Self { tag: None, digest: None }, _) => Ok(None),
            (None, Self { tag, digest }, _) => {
                let wanted = digest.or(tag).unwrap_or_default();
                let there: Vec<String> = all.iter().map(shown).collect();
                Err(format!("it has no image `{wanted}`, but {}", there.join(", ")))
            }
        }
    }
}

/// An entry of a layout, for people.
fn shown(one: &Descriptor) -> String {
    one.annotations.get(REF_NAME).map_or_else(|| format!("`{}`", one.digest), |name| format!("`{name}`"))
}

/// The same for a layout, whose index is only a list of its contents: a single image is identified by its own digest.
///
/// # Errors
/// As for [`resolve`]; or if the layout does not have what is meant.
pub async fn resolve_layout(
    blobs: &dyn Blobs,
    top: &Document,
    which: Which<'_>,
    wanted: &Platform,
) -> Result<Base, Error> {
    if media_type::is_index(&top.descriptor.media_type) {
        let index: Index = read(blobs, "`index.json`", &top.data)?;
        let found = which.of(&index).map_err(|reason| Error::NoImage { place: blobs.place(), reason })?;
        if let Some(only) = found {
            let found = Document { data: document(blobs, only).await?, descriptor: only.clone() };
            return resolve(blobs, &found, wanted).await;
        }
    }
    resolve(blobs, top, wanted).await
}

fn none_for(blobs: &dyn Blobs, wanted: &Platform, there: Others) -> Error {
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
        return Err(none_for(blobs, wanted, Others(vec![is])));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_a_layout_is_named_by_its_tag_or_digest() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let one = |letter: &str, tag: Option<&str>| {
            let mut one = Descriptor::new(media_type::OCI_MANIFEST, digest(letter).parse().unwrap(), 1);
            one.annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
            one
        };
        let index = Index::new(vec![one("a", Some("1")), one("b", Some("registry.example/x:latest")), one("c", None)]);
        let of = |text: &str| {
            let found = Which::read(text).1.of(&index);
            found
                .map(|found| found.map(|found| found.digest.hex()[..1].to_owned()))
                .map_err(|error| error[..28].to_owned())
        };
        assert_eq!(
            (of("d:1"), of("d"), of("d:latest")),
            (Ok(Some("a".into())), Ok(Some("b".into())), Ok(Some("b".into())))
        );
        assert_eq!(of(&format!("d:1@{}", digest("c"))), Ok(Some("c".into())), "a digest comes first");
        assert_eq!(of("d:2"), Err("it has no image `2`, but `1`".into()));
        assert_eq!(Which::read("a:b/c").0, "a:b/c");
        let single = Index::new(vec![one("a", Some("1"))]);
        assert!(Which::read("d:other").1.of(&single).unwrap().is_some(), "there is only one, as buildx takes it");
        assert!(Which::read("d").1.of(&Index::new(vec![one("a", None), one("b", None)])).unwrap().is_none());
    }
}
