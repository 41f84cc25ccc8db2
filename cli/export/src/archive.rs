//! An image as an OCI layout or as `docker save` writes it: an archive or a directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use kiln_buildx::Annotation;
use kiln_images::archive::{DOCKER_LIST, header, padding};
use kiln_images::blobs::{self, Blobs};
use kiln_images::image::Image;
use kiln_images::layout;
use kiln_images::manifest::{Descriptor, Document, Index};
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::set::of_index_descriptor;
use crate::{Error, Set};

/// The annotation with the whole name of an image.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// What an archive or a directory consists of.
#[derive(Debug, Clone)]
pub struct Content {
    files: Vec<(String, Document)>,
    layers: Vec<Descriptor>,
}

impl Content {
    /// An OCI layout of everything, under these full names.
    pub fn layout(set: &Set, names: &[(String, String)], annotations: &[Annotation]) -> Self {
        let mut plain = set.top.descriptor.clone();
        plain.annotations = of_index_descriptor(annotations);
        let named = |(name, tag): &(String, String)| {
            let mut descriptor = plain.clone();
            descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.clone());
            descriptor.annotations.insert(layout::REF_NAME.to_owned(), tag.clone());
            descriptor
        };
        let list: Vec<Descriptor> =
            if names.is_empty() { vec![plain.clone()] } else { names.iter().map(named).collect() };
        let documents = set.manifests.iter().chain(&set.documents).chain([&set.top]);
        Self::of(&Index::new(list), documents, &set.images)
    }

    /// What `docker load` reads: one image under these names.
    pub fn saved(image: &Image, names: &[String]) -> Self {
        let mut content = Self::of(
            &Index::new(vec![image.manifest.descriptor.clone()]),
            [&image.manifest, &image.config].into_iter(),
            std::slice::from_ref(image),
        );
        let layers: Vec<String> = image.layers.iter().map(|layer| layout::blob_path(&layer.digest)).collect();
        let config = layout::blob_path(&image.config.descriptor.digest);
        let list = json!([{ "Config": config, "RepoTags": names, "Layers": layers }]);
        content.files.push((DOCKER_LIST.to_owned(), Document::encode("application/json", &list)));
        content
    }

    fn of<'d>(index: &Index, documents: impl Iterator<Item = &'d Document>, images: &[Image]) -> Self {
        let mut files = vec![
            (layout::MARKER.to_owned(), Document::new("application/json", layout::MARKER_CONTENT)),
            (layout::INDEX.to_owned(), Document::from(index)),
        ];
        let mut known = BTreeSet::new();
        for document in documents.filter(|document| known.insert(document.descriptor.digest)) {
            files.push((layout::blob_path(&document.descriptor.digest), document.clone()));
        }
        let all = images.iter().flat_map(|image| image.layers.iter().cloned());
        Self { files, layers: all.filter(|layer| known.insert(layer.digest)).collect() }
    }

    /// Bytes of all layers.
    pub fn layer_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// The same without these layers, for a reader that has them.
    #[must_use]
    pub fn without(&self, known: &[Descriptor]) -> Self {
        let layers = self.layers.iter().filter(|layer| !known.iter().any(|one| one.digest == layer.digest));
        Self { files: self.files.clone(), layers: layers.cloned().collect() }
    }

    /// Writes an archive, which errors call `shown`.
    ///
    /// # Errors
    /// If a blob cannot be read or `to` cannot be written.
    pub async fn write(
        &self,
        blobs: &dyn Blobs,
        to: &mut (impl AsyncWrite + Unpin),
        shown: &Path,
    ) -> Result<(), Error> {
        let broken = |source| Error::Write { path: shown.to_owned(), source };
        for (path, Document { data, .. }) in &self.files {
            to.write_all(&header(path, data.len() as u64)).await.map_err(broken)?;
            to.write_all(data).await.map_err(broken)?;
            to.write_all(&padding(data.len() as u64)).await.map_err(broken)?;
        }
        for layer in &self.layers {
            to.write_all(&header(&layout::blob_path(&layer.digest), layer.size)).await.map_err(broken)?;
            let mut pieces = blobs::checked(blobs.open(layer).await?, layer);
            while let Some(piece) = pieces.try_next().await? {
                to.write_all(&piece).await.map_err(broken)?;
            }
            to.write_all(&padding(layer.size)).await.map_err(broken)?;
        }
        to.write_all(&[0; 1024]).await.map_err(broken)?;
        to.flush().await.map_err(broken)
    }

    /// Writes a directory. What is there already and not of this image stays.
    ///
    /// # Errors
    /// If a blob cannot be read or the directory cannot be written.
    pub async fn write_directory(&self, blobs: &dyn Blobs, into: &Path) -> Result<(), Error> {
        let failed = |path: PathBuf| move |source| Error::Write { path, source };
        let below = into.join("blobs/sha256");
        tokio::fs::create_dir_all(&below).await.map_err(failed(below))?;
        for layer in &self.layers {
            let path = into.join(layout::blob_path(&layer.digest));
            if tokio::fs::metadata(&path).await.is_ok_and(|found| found.len() == layer.size) {
                continue;
            }
            let part = path.with_extension("part");
            let mut file = tokio::fs::File::create(&part).await.map_err(failed(part.clone()))?;
            let mut pieces = blobs::checked(blobs.open(layer).await?, layer);
            while let Some(piece) = pieces.try_next().await? {
                file.write_all(&piece).await.map_err(failed(part.clone()))?;
            }
            file.flush().await.map_err(failed(part.clone()))?;
            tokio::fs::rename(&part, &path).await.map_err(failed(path))?;
        }
        // The list of images comes last, so that it names nothing that is missing.
        for (path, document) in self.files.iter().rev() {
            let path = into.join(path);
            tokio::fs::write(&path, &document.data).await.map_err(failed(path.clone()))?;
        }
        Ok(())
    }
}
