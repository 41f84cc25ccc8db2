//! Documents about an image (provenance, SBOM, checksums), each with its own manifest that has the image as subject.
//!
//! Source: OCI distribution specification 1.1, "Pushing Manifests with Subject" and "Referrers Tag Schema".

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, Manifest, media_type};
use crate::registry;

/// Media types of these documents.
pub mod kind {
    #![allow(missing_docs)]
    /// An in-toto statement.
    pub const PROVENANCE: &str = "application/vnd.in-toto+json";
    /// A CycloneDX document.
    pub const SBOM: &str = "application/vnd.cyclonedx+json";
    /// Lines in the format of `sha256sum`.
    pub const CHECKSUMS: &str = "text/plain";
    pub const CHECKSUMS_ARTIFACT: &str = "application/vnd.kiln.checksums.v1";
    /// A DSSE envelope: a signed in-toto statement as Cosign before version 3 attaches it.
    pub const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
    /// A Sigstore bundle: the same, as later versions attach it.
    pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
}

/// A document about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Its type.
    pub artifact_type: String,
    /// Its file name.
    pub title: String,
    /// Its content.
    pub content: Document,
    /// What its manifest says besides.
    pub annotations: BTreeMap<String, String>,
    /// The envelope in a bundle, as a layer of [`attached`].
    pub envelope: Option<Document>,
}

impl Referrer {
    /// A document with these types, title and content.
    pub fn new(artifact_type: &str, media_type: &str, title: &str, data: Bytes) -> Self {
        let content = Document::new(media_type, data);
        let annotations = BTreeMap::new();
        let (artifact_type, title) = (artifact_type.to_owned(), title.to_owned());
        Self { artifact_type, title, content, annotations, envelope: None }
    }

    /// A bundle over a statement of this type, with what Cosign looks for. `created` is a time in RFC 3339.
    pub fn bundle(title: &str, data: Bytes, predicate_type: &str, created: &str) -> Self {
        let envelope = serde_json::from_slice::<Value>(&data).ok().and_then(|json| json.get("dsseEnvelope").cloned());
        let mut bundle = Self::new(kind::BUNDLE, kind::BUNDLE, title, data);
        bundle.envelope = envelope.map(|envelope| {
            let mut layer = Document::encode(kind::ENVELOPE, &envelope);
            let said = [("dev.cosignproject.cosign/signature", ""), ("predicateType", predicate_type)];
            layer.descriptor.annotations = said.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            layer
        });
        bundle.annotations = [
            ("dev.sigstore.bundle.content", "dsse-envelope"),
            ("dev.sigstore.bundle.predicateType", predicate_type),
            ("org.opencontainers.image.created", created),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        bundle
    }

    /// Its manifest, as a referrer of `subject`.
    pub fn manifest(&self, subject: &Descriptor) -> Document {
        let mut layer = self.content.descriptor.clone();
        layer.annotations.insert("org.opencontainers.image.title".to_owned(), self.title.clone());
        let mut manifest = Manifest::new(Document::empty().descriptor, vec![layer]);
        manifest.artifact_type = Some(self.artifact_type.clone());
        manifest.subject = Some(Descriptor::new(&subject.media_type, subject.digest, subject.size));
        manifest.annotations.clone_from(&self.annotations);
        manifest.annotations.insert("org.opencontainers.image.title".to_owned(), self.title.clone());
        let mut document = Document::from(&manifest);
        // A list of referrers has them too: whoever looks for one reads no others.
        document.descriptor.annotations.clone_from(&self.annotations);
        document
    }
}

/// The tag that lists the referrers of `subject` if the registry does not list them itself.
pub fn tag(subject: &Digest) -> String {
    registry::referrers_tag(subject)
}

/// The tag under which Cosign before version 3 looks for the envelopes about `subject`.
pub(crate) fn attachments(subject: &Digest) -> String {
    format!("{}.att", tag(subject))
}

/// The manifest of these envelopes and of those that `before` has, with its configuration: to Cosign it is an image.
pub(crate) fn attached(envelopes: &[&Document], before: Option<Manifest>) -> (Document, Document) {
    let mut layers = before.map(|manifest| manifest.layers).unwrap_or_default();
    for envelope in envelopes {
        if !layers.iter().any(|known| known.digest == envelope.descriptor.digest) {
            layers.push(envelope.descriptor.clone());
        }
    }
    let ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": ids });
    let config = json!({ "architecture": "", "os": "", "config": {}, "rootfs": rootfs });
    let config = Document::encode(media_type::OCI_CONFIG, &config);
    (Document::from(&Manifest::new(config.descriptor.clone(), layers)), config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_referrer_names_its_subject_its_type_and_its_content() {
        let subject = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"image"), 7);
        let referrer = Referrer::new(kind::SBOM, kind::SBOM, "shop.cdx.json", Bytes::from_static(b"{}"));
        let document = referrer.manifest(&subject);
        let manifest: Manifest = serde_json::from_slice(&document.data).unwrap();
        assert_eq!(manifest.subject.unwrap().digest, subject.digest);
        assert_eq!(manifest.layers[0].digest, Digest::of(b"{}"));
        assert_eq!(document.descriptor.artifact_type.as_deref(), Some(kind::SBOM));
        assert_eq!(document, referrer.manifest(&subject), "it is the same each time");
    }

    #[test]
    fn envelopes_are_attached_once_beside_those_that_are_there() {
        let bundle = |payload: &str| {
            let data = json!({ "dsseEnvelope": { "payload": payload } }).to_string();
            Referrer::bundle("a.sigstore.json", data.into(), "urn:p", "2026-01-01T00:00:00Z").envelope.unwrap()
        };
        let (one, two) = (bundle("one"), bundle("two"));
        let (first, _) = attached(&[&one], None);
        let (both, config) = attached(&[&one, &two], serde_json::from_slice(&first.data).ok());
        let manifest: Manifest = serde_json::from_slice(&both.data).unwrap();
        let layers: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
        assert_eq!(layers, [one.descriptor.digest, two.descriptor.digest]);
        assert_eq!(manifest.layers[0].annotations["predicateType"], "urn:p");
        let config: Value = serde_json::from_slice(&config.data).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(layers));
    }
}
