//! The image of a build: its base's layers, a layer for each instruction that has one, configuration and history.

use std::collections::BTreeMap;

use kiln_dockerfile::Build;
use kiln_dockerfile::config::History;
use kiln_images::digest;
use kiln_images::image::{Image, rfc3339};
use kiln_images::manifest::{Descriptor, Document, Manifest, media_type};
use kiln_images::platform::Platform;
use kiln_proto::digest::Digest;

use crate::build::{Done, chain};
use crate::{Error, Layer, Packing, Roots};

/// How Docker's builder marks layers that no instruction made.
const OF_CONTEXT: &str = "buildkit.exporter.image.v0";

/// An image, and where its layers are in the store.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The image.
    pub image: Image,
    /// The store's digest of each layer that the build added.
    pub blobs: BTreeMap<digest::Digest, Digest>,
    /// For each instruction that added a layer, by its operation: the layer.
    pub added: Vec<(usize, Layer)>,
}

impl Roots {
    /// The image of a build that was carried out. `base` are the layers of the image that its last stage is built on, lowest first;
    /// none for `scratch`. Times of the image are `packing.epoch`.
    ///
    /// # Errors
    /// If a blob is missing, or the store fails.
    pub async fn image(
        &self,
        build: &Build,
        done: &Done,
        base: &[Descriptor],
        packing: Packing,
    ) -> Result<Assembled, Error> {
        let (mut added, mut blobs) = (Vec::new(), BTreeMap::new());
        for (below, at) in chain(build) {
            let before = match below {
                Some(below) => done.of(below).cloned(),
                None => Some(self.scratch().await?),
            };
            let (Some(before), Some(after)) = (before, done.of(at)) else { continue };
            let layer = self.layer(&before, after, packing).await?;
            blobs.insert(layer.layer.descriptor.digest, layer.blob);
            added.push((at, layer));
        }
        let created = rfc3339(packing.epoch);
        let mut config = build.image.clone();
        config.created = Some(created.clone());
        config.rootfs.diff_ids.extend(added.iter().map(|(_, layer)| layer.layer.diff_id.to_string()));
        if chain(build).first().is_some_and(|(below, _)| below.is_none()) {
            // The layer of the context that it is built on, which no instruction made.
            let entry = History { comment: OF_CONTEXT.to_owned(), ..History::default() };
            config.history.insert(build.inherited_history.min(config.history.len()), entry);
        }
        for entry in config.history.iter_mut().skip(build.inherited_history) {
            entry.created = Some(created.clone());
        }
        let layers: Vec<Descriptor> =
            base.iter().cloned().chain(added.iter().map(|(_, layer)| layer.layer.descriptor.clone())).collect();
        let platform = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            variant: (!config.variant.is_empty()).then(|| config.variant.clone()),
        };
        let config = Document::encode(media_type::OCI_CONFIG, &config);
        let mut manifest = Document::from(&Manifest::new(config.descriptor.clone(), layers.clone()));
        manifest.descriptor.platform = Some(platform);
        Ok(Assembled { image: Image { manifest, config, layers }, blobs, added })
    }
}
