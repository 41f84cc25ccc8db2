//! The images of a build with their attestations, and the document that names them all.
//!
//! Source: BuildKit, "Image attestation storage"; OCI image specification 1.1.

use std::collections::BTreeMap;

use kiln_buildx::{Annotation, Format, Level};
use kiln_images::image::Image;
use kiln_images::manifest::{Descriptor, Document, Index, Manifest, media_type};
use kiln_images::platform::Platform;
use serde_json::json;

use crate::Error;
use crate::statement::Statement;

const ATTESTATION: &str = "application/vnd.docker.attestation.manifest.v1+json";
const STATEMENT: &str = "application/vnd.in-toto+json";
const PREDICATE: &str = "in-toto.io/predicate-type";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// An image with its attestations.
#[derive(Debug, Clone)]
pub struct Attested {
    /// The image.
    pub image: Image,
    /// Its attestations, whose subject is still to be set.
    pub statements: Vec<Statement>,
}

/// The images of a build.
#[derive(Debug, Clone)]
pub struct Set {
    /// One for each platform.
    pub images: Vec<Image>,
    /// All manifests: those of images, and those of attestations.
    pub manifests: Vec<Document>,
    /// All other documents: configurations and attestations.
    pub documents: Vec<Document>,
    /// What a name stands for: the only manifest, or the index.
    pub top: Document,
}

impl Set {
    /// Puts images together. `names` are those of the image, for the subjects of attestations.
    ///
    /// # Errors
    /// [`Error::NoIndex`]; if a document is malformed.
    pub fn new(
        attested: Vec<Attested>,
        format: &Format,
        annotations: &[Annotation],
        names: &[String],
    ) -> Result<Self, Error> {
        let mut attested = attested;
        let platform = |one: &Attested| one.image.manifest.descriptor.platform.clone();
        attested.sort_by_key(|one| platform(one).map(|platform| platform.to_string()));
        let mut set = Self { images: Vec::new(), manifests: Vec::new(), documents: Vec::new(), top: Document::empty() };
        let (mut listed, mut attestations) = (Vec::new(), Vec::new());
        for one in attested {
            let image = if format.docker_types { docker_typed(one.image)? } else { one.image };
            let platform = image.manifest.descriptor.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            let mut descriptor = image.manifest.descriptor.clone();
            descriptor.annotations.extend(chosen(annotations, Level::ManifestDescriptor, &platform));
            listed.push(descriptor);
            set.manifests.push(image.manifest.clone());
            set.documents.push(image.config.clone());
            if !one.statements.is_empty() {
                let manifest = set.attestation(&image, one.statements, format, names, &platform)?;
                let mut descriptor = manifest.descriptor.clone();
                descriptor.platform = Some(Platform { os: "unknown".to_owned(), ..Platform::linux("unknown") });
                descriptor.annotations = BTreeMap::from([
                    (REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned()),
                    (REFERENCE_DIGEST.to_owned(), image.manifest.descriptor.digest.to_string()),
                ]);
                attestations.push(descriptor);
                set.manifests.push(manifest);
            }
            set.images.push(image);
        }
        let of_index = chosen(annotations, Level::Index, "");
        listed.extend(attestations);
        set.top = match (listed.as_slice(), set.images.as_slice()) {
            ([_], [only]) if of_index.is_empty() => only.manifest.clone(),
            ([_], _) => return Err(Error::NoIndex),
            _ => {
                let mut index = Index::new(listed);
                index.annotations = of_index;
                let kind = if format.docker_types { media_type::DOCKER_INDEX } else { media_type::OCI_INDEX };
                index.media_type = Some(kind.to_owned());
                Document::encode(kind, &index)
            }
        };
        Ok(set)
    }

    /// Whether the name stands for an index.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.top.descriptor.media_type)
    }

    /// What `docker build` calls the image's id: the configuration's digest, or the index's.
    pub fn id(&self) -> String {
        match self.images.as_slice() {
            [only] if !self.is_index() => only.config.descriptor.digest.to_string(),
            _ => self.top.descriptor.digest.to_string(),
        }
    }

    /// The manifest of an image's attestations.
    fn attestation(
        &mut self,
        image: &Image,
        statements: Vec<Statement>,
        format: &Format,
        names: &[String],
        platform: &str,
    ) -> Result<Document, Error> {
        let subject = &image.manifest.descriptor;
        let mut layers = Vec::new();
        for statement in statements {
            let data = statement.about(names, platform, &subject.digest)?;
            let document = Document::new(STATEMENT, data);
            let mut layer = document.descriptor.clone();
            layer.annotations.insert(PREDICATE.to_owned(), statement.predicate_type.clone());
            layers.push(layer);
            self.documents.push(document);
        }
        let config = if format.image_attestations {
            let ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
            let config = json!({
                "architecture": "unknown", "os": "unknown", "config": {}, "rootfs": { "type": "layers", "diff_ids": ids },
            });
            Document::encode(media_type::OCI_CONFIG, &config)
        } else {
            Document::empty()
        };
        let mut manifest = Manifest::new(config.descriptor.clone(), layers);
        if !format.image_attestations {
            manifest.artifact_type = Some(ATTESTATION.to_owned());
            manifest.subject = Some(Descriptor::new(&subject.media_type, subject.digest, subject.size));
        }
        self.documents.push(config);
        Ok(Document::from(&manifest))
    }
}

fn chosen(annotations: &[Annotation], level: Level, platform: &str) -> BTreeMap<String, String> {
    let wanted = annotations.iter().filter(|one| one.is_for(level, platform));
    wanted.map(|one| (one.key.clone(), one.value.clone())).collect()
}

/// What a layout's own list says of the image.
pub(crate) fn of_index_descriptor(annotations: &[Annotation]) -> BTreeMap<String, String> {
    chosen(annotations, Level::IndexDescriptor, "")
}

/// An image with Docker's media types. Annotations are OCI's, and stay.
fn docker_typed(image: Image) -> Result<Image, Error> {
    let mut manifest: Manifest = serde_json::from_slice(&image.manifest.data)?;
    manifest.media_type = Some(media_type::DOCKER_MANIFEST.to_owned());
    manifest.config.media_type = media_type::DOCKER_CONFIG.to_owned();
    for layer in &mut manifest.layers {
        let docker = match layer.media_type.as_str() {
            media_type::OCI_LAYER => media_type::DOCKER_LAYER,
            media_type::OCI_LAYER_GZIP => media_type::DOCKER_LAYER_GZIP,
            media_type::OCI_LAYER_ZSTD => media_type::DOCKER_LAYER_ZSTD,
            other => other,
        };
        layer.media_type = docker.to_owned();
    }
    let mut document = Document::encode(media_type::DOCKER_MANIFEST, &manifest);
    document.descriptor.platform.clone_from(&image.manifest.descriptor.platform);
    let mut config = image.config;
    config.descriptor.media_type = media_type::DOCKER_CONFIG.to_owned();
    Ok(Image { manifest: document, config, layers: manifest.layers })
}

#[cfg(test)]
mod tests {
    use kiln_images::digest::Digest;
    use serde_json::Value;

    use super::*;

    fn image(architecture: &str) -> Image {
        let config = Document::encode(media_type::OCI_CONFIG, &json!({ "architecture": architecture }));
        let layers = vec![Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(b"layer"), 5)];
        let mut manifest = Document::from(&Manifest::new(config.descriptor.clone(), layers.clone()));
        manifest.descriptor.platform = Some(Platform::linux(architecture));
        Image { manifest, config, layers }
    }

    fn attested(architecture: &str, with: bool) -> Attested {
        let statement = Statement { predicate_type: "https://slsa.dev/provenance/v1".into(), predicate: json!({}) };
        Attested { image: image(architecture), statements: if with { vec![statement] } else { Vec::new() } }
    }

    fn annotation(level: Level, key: &str) -> Annotation {
        Annotation { level, platform: None, key: key.into(), value: "v".into() }
    }

    fn json_of(document: &Document) -> Value {
        serde_json::from_slice(&document.data).unwrap()
    }

    #[test]
    fn one_image_alone_is_its_manifest_and_its_id_the_configuration() {
        let set = Set::new(vec![attested("amd64", false)], &Format::default(), &[], &[]).unwrap();
        assert_eq!(set.top, image("amd64").manifest);
        assert_eq!(set.id(), image("amd64").config.descriptor.digest.to_string());
        let index = [annotation(Level::Index, "k")];
        assert!(matches!(
            Set::new(vec![attested("amd64", false)], &Format::default(), &index, &[]),
            Err(Error::NoIndex)
        ));
    }

    #[test]
    fn attestations_make_an_index_with_a_manifest_for_no_platform() {
        let annotations = [annotation(Level::Index, "i"), annotation(Level::ManifestDescriptor, "d")];
        let names = ["app:1".to_owned()];
        let both = vec![attested("arm64", true), attested("amd64", true)];
        let set = Set::new(both, &Format::default(), &annotations, &names).unwrap();
        let index = json_of(&set.top);
        assert_eq!(index["annotations"]["i"], "v");
        let platforms: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(platforms, ["amd64", "arm64", "unknown", "unknown"]);
        assert_eq!(index["manifests"][0]["annotations"]["d"], "v");
        let attestation = &index["manifests"][2];
        assert_eq!(attestation["annotations"][REFERENCE_TYPE], "attestation-manifest");
        assert_eq!(attestation["annotations"][REFERENCE_DIGEST], index["manifests"][0]["digest"]);
        let manifest = set.manifests.iter().find(|one| json!(one.descriptor.digest) == attestation["digest"]).unwrap();
        let manifest = json_of(manifest);
        assert_eq!(manifest["artifactType"], ATTESTATION);
        assert_eq!(manifest["subject"]["digest"], index["manifests"][0]["digest"]);
        assert_eq!(manifest["layers"][0]["annotations"][PREDICATE], "https://slsa.dev/provenance/v1");
        let layer =
            set.documents.iter().find(|one| json!(one.descriptor.digest) == manifest["layers"][0]["digest"]).unwrap();
        let statement = json_of(layer);
        assert_eq!(statement["subject"][0]["name"], "pkg:docker/app@1?platform=linux%2Famd64");
        assert_eq!(set.id(), set.top.descriptor.digest.to_string());
        let as_image = Format { image_attestations: true, docker_types: true, ..Format::default() };
        let set = Set::new(vec![attested("amd64", true)], &as_image, &[], &[]).unwrap();
        assert_eq!(json_of(&set.top)["mediaType"], media_type::DOCKER_INDEX);
        assert_eq!(json_of(&set.manifests[0])["layers"][0]["mediaType"], media_type::DOCKER_LAYER_GZIP);
        assert_eq!(json_of(&set.manifests[1])["config"]["mediaType"], media_type::OCI_CONFIG);
    }
}
