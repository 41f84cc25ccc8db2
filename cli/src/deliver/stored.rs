//! An artifact on the farm: its documents are read here, its blobs only when they are needed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use kiln_images::blobs::{self, Blobs, ByteStream};
use kiln_images::digest::Digest as ImageDigest;
use kiln_images::image::Image;
use kiln_images::layout;
use kiln_images::manifest::{Descriptor, Document, Index, Manifest, media_type};
use kiln_images::referrer::{Referrer, kind};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::protobuf::Timestamp;
use kiln_proto::transfer::Client;
use kiln_proto::{reapi, v1};
use kiln_trees::tree::{Entry, Tree};
use kiln_verify::{Bundle, Evidence, Item, Target};

use super::Error;
use crate::farm::Farm;

/// An artifact on the farm.
pub(super) struct Stored {
    pub(super) artifact: v1::Artifact,
    client: Client,
    /// Its files by path.
    files: BTreeMap<String, Digest>,
    /// Its symbolic links by path, with what they lead to.
    links: BTreeMap<String, String>,
}

impl Stored {
    pub(super) async fn open_all(farm: &Farm, artifacts: &[&v1::Artifact]) -> Result<Vec<Self>, Error> {
        let mut stored = Vec::new();
        for artifact in artifacts {
            stored.push(Self::open(farm, (*artifact).clone()).await?);
        }
        Ok(stored)
    }

    async fn open(farm: &Farm, artifact: v1::Artifact) -> Result<Self, Error> {
        let malformed = |reason: String| Error::Malformed { name: artifact.name.clone(), reason };
        let function =
            DigestFunction::from_wire(artifact.digest_function).map_err(|error| malformed(error.to_string()))?;
        let root = Digest::required(function, artifact.root.as_ref()).map_err(|error| malformed(error.to_string()))?;
        let client = farm.blobs(&artifact.instance, function);
        let mut stored = Self { artifact, client, files: BTreeMap::new(), links: BTreeMap::new() };
        let mut waiting = vec![(root, String::new())];
        while let Some((digest, above)) = waiting.pop() {
            let directory: reapi::Directory =
                stored.client.get_message(&digest).await.map_err(|source| stored.transfer(source))?;
            let tree =
                Tree::from_directory(function, &directory).map_err(|error| stored.malformed(error.to_string()))?;
            for (name, entry) in tree.entries {
                let path = if above.is_empty() { name } else { format!("{above}/{name}") };
                match entry {
                    Entry::File { digest, .. } => {
                        stored.files.insert(path, digest);
                    }
                    Entry::Sealed { digest } => waiting.push((digest, path)),
                    Entry::Symlink { target } => drop(stored.links.insert(path, target)),
                    Entry::Directory(_) => {}
                }
            }
        }
        Ok(stored)
    }

    pub(super) fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { name: self.artifact.name.clone(), reason: reason.into() }
    }

    fn transfer(&self, source: kiln_proto::transfer::Error) -> Error {
        Error::Transfer { name: self.artifact.name.clone(), source: Box::new(source) }
    }

    /// A client for the store that contains it.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Its files by path.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &Digest)> {
        self.files.iter().map(|(path, digest)| (path.as_str(), digest))
    }

    async fn read(&self, path: &str) -> Result<Bytes, Error> {
        let digest = self.files.get(path).ok_or_else(|| self.malformed(format!("it has no `{path}`")))?;
        self.client.get(digest).await.map_err(|source| self.transfer(source))
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Document, Error> {
        let data = self.read(&layout::blob_path(&descriptor.digest)).await?;
        Ok(Document { descriptor: descriptor.clone(), data })
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, data: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(data).map_err(|error| self.malformed(error.to_string()))
    }

    /// The images in its layout, one per platform.
    pub(super) async fn images(&self) -> Result<Vec<Image>, Error> {
        let index: Index = self.parse(&self.read(layout::INDEX).await?)?;
        let mut waiting = index.manifests;
        let mut images = Vec::new();
        while let Some(mut descriptor) = waiting.pop() {
            // The layout's own names are not pushed.
            descriptor.annotations.clear();
            let document = self.document(&descriptor).await?;
            if media_type::is_index(&descriptor.media_type) {
                waiting.extend(self.parse::<Index>(&document.data)?.manifests);
                continue;
            }
            let manifest: Manifest = self.parse(&document.data)?;
            let config = self.document(&manifest.config).await?;
            images.push(Image { manifest: document, config, layers: manifest.layers });
        }
        Ok(images)
    }

    /// Its provenance, and its bill of materials if it has one.
    pub(super) async fn documents(&self) -> Result<(Bytes, Option<Bytes>), Error> {
        let mut found = Vec::new();
        for wire in [&self.artifact.provenance, &self.artifact.spdx] {
            let Some(wire) = wire else {
                found.push(None);
                continue;
            };
            let digest = Digest::from_wire(self.client.function(), wire);
            let digest = digest.map_err(|error| self.malformed(error.to_string()))?;
            found.push(Some(self.client.get(&digest).await.map_err(|source| self.transfer(source))?));
        }
        let sbom = found.pop().flatten();
        let provenance = found.pop().flatten().ok_or_else(|| self.malformed("it has no provenance"))?;
        Ok((provenance, sbom))
    }

    /// The documents that are pushed with it.
    pub(super) async fn referrers(&self) -> Result<Vec<Referrer>, Error> {
        let name = &self.artifact.name;
        let said = [
            (&self.artifact.provenance, kind::PROVENANCE, kind::PROVENANCE, format!("{name}.provenance.json")),
            (&self.artifact.sbom, kind::SBOM, kind::SBOM, format!("{name}.cdx.json")),
            (&self.artifact.checksums, kind::CHECKSUMS_ARTIFACT, kind::CHECKSUMS, format!("{name}.sha256")),
        ];
        let mut referrers = Vec::new();
        for (wire, artifact_type, media_type, title) in said {
            let Some(wire) = wire else { continue };
            let digest = Digest::from_wire(self.client.function(), wire);
            let digest = digest.map_err(|error| self.malformed(error.to_string()))?;
            let data = self.client.get(&digest).await.map_err(|source| self.transfer(source))?;
            referrers.push(Referrer::new(artifact_type, media_type, &title, data));
        }
        referrers.extend(self.signed().await?.into_iter().map(|(_, referrer)| referrer));
        Ok(referrers)
    }

    /// What the farm signed about it, as documents that are pushed with it, by the names of their statements.
    pub(super) async fn signed(&self) -> Result<Vec<(String, Referrer)>, Error> {
        let whole = |at: Timestamp| kiln_proto::clock::rfc3339(&Timestamp { nanos: 0, ..at });
        let created = self.artifact.created.map(whole).unwrap_or_default();
        let referrer = |(attestation, title, data): (&v1::Attestation, String, Bytes)| {
            (attestation.name.clone(), Referrer::bundle(&title, data, &attestation.predicate_type, &created))
        };
        Ok(self.bundles().await?.into_iter().map(referrer).collect())
    }

    /// What the farm signed about it: file names and bundles.
    async fn bundles(&self) -> Result<Vec<(&v1::Attestation, String, Bytes)>, Error> {
        let mut bundles = Vec::new();
        for attestation in &self.artifact.attestations {
            let Some(wire) = &attestation.bundle else { continue };
            let digest = Digest::from_wire(self.client.function(), wire);
            let digest = digest.map_err(|error| self.malformed(error.to_string()))?;
            let data = self.client.get(&digest).await.map_err(|source| self.transfer(source))?;
            let title = format!("{}.{}.sigstore.json", self.artifact.name, attestation.name);
            bundles.push((attestation, title, data));
        }
        Ok(bundles)
    }

    /// What there is to verify of it.
    async fn evidence(&self) -> Result<Evidence, Error> {
        let name = self.artifact.id.clone();
        let items = match self.artifact.kind.as_str() {
            "image" => {
                let item = |image: &Image| Item::sha256(&name, image.manifest.descriptor.digest.hex());
                self.images().await?.iter().map(item).collect()
            }
            _ => self.files().map(|(path, digest)| item(path, digest)).collect(),
        };
        let is_whole = self.artifact.kind != "image";
        let links = is_whole.then(|| self.links.clone());
        let platform = Some(self.artifact.platform.clone());
        let bundles = self.bundles().await?.into_iter();
        Ok(Evidence {
            what: name.clone(),
            targets: vec![Target { name, platform, items, links, is_whole, ..Target::default() }],
            bundles: bundles.map(|(_, name, data)| Bundle { name, data: data.to_vec() }).collect(),
        })
    }
}

fn item(path: &str, digest: &Digest) -> Item {
    Item { name: path.to_owned(), digests: [(digest.function.name().to_owned(), digest.hex())].into() }
}

/// What there is to verify of an artifact on the farm.
pub(crate) async fn evidence(farm: &Farm, artifact: v1::Artifact) -> Result<Evidence, Error> {
    Stored::open(farm, artifact).await?.evidence().await
}

/// The digest of a file of an artifact other than an image, if it is a SHA-256.
fn named_by_content(digest: &Digest) -> Option<ImageDigest> {
    (digest.function == DigestFunction::Sha256).then(|| digest.hash.into())
}

/// The blobs of several artifacts.
pub(super) struct OnFarm<'a>(pub(super) &'a [Stored]);

#[async_trait]
impl Blobs for OnFarm<'_> {
    fn place(&self) -> String {
        "the farm".to_owned()
    }

    async fn open(&self, descriptor: &Descriptor) -> Result<ByteStream, blobs::Error> {
        let path = layout::blob_path(&descriptor.digest);
        for stored in self.0 {
            let by_path = stored.files.get(&path);
            let by_content =
                || stored.files.values().find(|digest| named_by_content(digest) == Some(descriptor.digest));
            let Some(digest) = by_path.or_else(by_content) else { continue };
            let elsewhere = |error: kiln_proto::transfer::Error| blobs::Error::Elsewhere(Box::new(error));
            let pieces = stored.client.stream(digest).await.map_err(elsewhere)?;
            return Ok(pieces.map(move |piece| piece.map_err(elsewhere)).boxed());
        }
        let (place, expected) = (self.place(), "every blob of the artifact");
        Err(blobs::Error::Absent { place, path: descriptor.digest.to_string(), expected })
    }
}
