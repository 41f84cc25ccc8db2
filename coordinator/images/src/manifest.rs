//! The documents of an image: descriptors, manifests, indexes; and the media types of OCI and of Docker.
//!
//! Invariant: a document written here has one encoding, so equal documents have equal digests. (The types of `oci-spec` keep
//! annotations in a hash map, whose order differs from run to run.) Source: OCI image specification 1.1.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

/// Media types by the names that the specifications give them.
pub mod media_type {
    #![allow(missing_docs)]
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

    /// Whether it is of an index: one manifest for each platform.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_INDEX)
    }

    /// Whether it is of an image's manifest.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// OCI's type for a layer of the same bytes; none for what is no layer that may be passed on.
    pub fn of_layer(media_type: &str) -> Option<&'static str> {
        match media_type {
            OCI_LAYER | DOCKER_LAYER => Some(OCI_LAYER),
            OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => Some(OCI_LAYER_GZIP),
            OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => Some(OCI_LAYER_ZSTD),
            _ => None,
        }
    }
}

/// Names a blob, and says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its content.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What an artifact's manifest is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What an image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Anything else, by names such as `org.opencontainers.image.ref.name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A blob of that type.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An image for one platform, or an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// Its own type; absent in some older images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// What it is about, where it is a referrer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// Manifests side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// Its own type; absent in some older images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        let media_type = Some(media_type::OCI_INDEX.to_owned());
        Self { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() }
    }
}

/// A document in its one encoding, with what names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Names it.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub data: Bytes,
}

impl Document {
    /// Bytes of that type.
    pub fn new(media_type: &str, data: impl Into<Bytes>) -> Self {
        let data = data.into();
        Self { descriptor: Descriptor::new(media_type, Digest::of(&data), data.len() as u64), data }
    }

    /// Encodes a document.
    pub fn encode(media_type: &str, document: &impl Serialize) -> Self {
        // A map with keys other than strings is all that JSON cannot hold, and no document has one.
        Self::new(media_type, serde_json::to_vec(document).unwrap_or_default())
    }

    /// What OCI puts where a manifest wants a configuration and there is none: `{}`.
    pub fn empty() -> Self {
        Self::new(media_type::OCI_EMPTY, Bytes::from_static(b"{}"))
    }
}

impl From<&Manifest> for Document {
    fn from(manifest: &Manifest) -> Self {
        let mut document = Self::encode(media_type::OCI_MANIFEST, manifest);
        document.descriptor.artifact_type.clone_from(&manifest.artifact_type);
        document
    }
}

impl From<&Index> for Document {
    fn from(index: &Index) -> Self {
        Self::encode(media_type::OCI_INDEX, index)
    }
}
